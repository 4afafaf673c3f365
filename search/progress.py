"""What does a search look like at one moment? Counts, leader, times: as a panel, as a line, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.ledger import Status

STATUS_NAMES = {
    Status.RUNNING: "running",
    Status.WAITING: "waiting",
    Status.PAUSED: "paused",
    Status.COMPLETED: "done",
    Status.STOPPED: "stopped early",
    Status.OUT_OF_BUDGET: "cut off by the budget",
    Status.FAILED: "failed",
}

# What a line of a log begins with that is a moment as JSON, for a program that follows the log.
EVENT = "vistune-progress "


@dataclass(frozen=True)
class Best:
    """The leader of a moment."""

    score: float
    trial: int
    epoch: int
    params: str


@dataclass(frozen=True)
class Progress:
    """One moment of a search, as every view of it shows it.

    Attributes:
        counts: trials by the value of their status.
        max_trials, max_epochs: None where the budget does not say.
        note: what is being done beside the trials.
        restarts: in words, how often trials went on after a lost worker; empty where none did.
    """

    title: str
    metric: str
    counts: Mapping[str, int]
    finished: int
    max_trials: int | None
    epochs: int
    max_epochs: int | None
    best: Best | None
    elapsed_s: float
    remaining_s: float | None
    note: str | None = None
    restarts: str = ""

    def later(self, seconds: float) -> Progress:
        """The same moment so many seconds on, for a clock that goes on between two reports."""
        left = None if self.remaining_s is None else max(0.0, self.remaining_s - seconds)
        return replace(self, elapsed_s=self.elapsed_s + seconds, remaining_s=left)

    def to_event(self) -> str:
        """The moment as one line of a log; it holds the sentence for people too."""
        return EVENT + json.dumps({"text": line(self), **asdict(self)}, ensure_ascii=False)


def from_event(text: str) -> Progress | None:
    """What `to_event` wrote; None for any other line, and for what another version wrote."""
    if not text.startswith(EVENT):
        return None
    try:
        fields: dict[str, Any] = json.loads(text[len(EVENT) :])
        del fields["text"]
        best = fields.pop("best")
        return Progress(best=None if best is None else Best(**best), **fields)
    except (ValueError, TypeError, KeyError):
        return None


def panel(now: Progress) -> RenderableType:
    """The live view of a terminal."""
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column()
    total = now.max_trials
    bar = ProgressBar(total=total, completed=now.finished, width=30) if total else Text("")
    counted = Table.grid(padding=(0, 1))
    counted.add_row(bar, Text(f"{now.finished}{f' of {total}' if total else ''}"), Text(_counts(now), style="dim"))
    rows.add_row("trials", counted)
    rows.add_row("epochs", _of_budget(now))
    rows.add_row("best", _best(now))
    rows.add_row("time", _times(now))
    lines: list[RenderableType] = [rows]
    if now.note:
        lines.append(Text(now.note, style="dim"))
    return Panel(Group(*lines), title=now.title, title_align="left", border_style="dim", padding=(0, 1))


def line(now: Progress) -> str:
    """The same on one line, where there is no terminal."""
    total = f"/{now.max_trials}" if now.max_trials else ""
    best = f"best {now.metric} {now.best.score:.4f} (trial {now.best.trial})" if now.best else "no score"
    return f"{now.finished}{total} trials: {_counts(now)}; {_of_budget(now)} epochs; {best}; {_times(now)}"


def describe_params(params: object) -> str:
    """Parameters on one line, numbers rounded for reading."""
    items = params.items() if hasattr(params, "items") else []
    return "  ".join(f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in items)


def format_duration(seconds: float) -> str:
    """1:05 for 65 seconds, 2:03:04 above an hour."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def _best(now: Progress) -> Text:
    if now.best is None:
        return Text("none yet", style="dim")
    text = Text(f"{now.metric} {now.best.score:.4f}", style="bold green")
    text.append(f"  trial {now.best.trial}, epoch {now.best.epoch}\n", style="default")
    text.append(now.best.params, style="dim")
    return text


def _counts(now: Progress) -> str:
    always = (Status.RUNNING, Status.COMPLETED, Status.STOPPED, Status.FAILED)
    told = [
        f"{now.counts.get(s, 0)} {name}"
        for s, name in STATUS_NAMES.items()
        if s in always or (now.counts.get(s) and s is not Status.WAITING)
    ]
    return ", ".join([*told, *([now.restarts] if now.restarts else [])])


def _of_budget(now: Progress) -> str:
    return f"{now.epochs:,}" if now.max_epochs is None else f"{now.epochs:,} of at most {now.max_epochs:,}"


def _times(now: Progress) -> str:
    left = "" if now.remaining_s is None else f", about {format_duration(now.remaining_s)} left"
    return f"{format_duration(now.elapsed_s)} elapsed{left}"
