"""What is the search doing right now? A live view in a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.config import SearchConfig
from search.ledger import Ledger, Status, TrialRecord

STATUS_NAMES = {
    Status.RUNNING: "running",
    Status.WAITING: "waiting",
    Status.PAUSED: "paused",
    Status.COMPLETED: "done",
    Status.STOPPED: "stopped early",
    Status.OUT_OF_BUDGET: "cut off by the budget",
    Status.FAILED: "failed",
}

_UNFINISHED = (Status.RUNNING, Status.WAITING, Status.PAUSED)

PLAIN_EVERY_S = 10.0
REFRESH_PER_S = 4.0


@dataclass(frozen=True)
class Progress:
    """Counts of one moment, as both views show them."""

    counts: Counter[Status]
    epochs: int
    best: TrialRecord | None
    elapsed_s: float
    remaining_s: float | None

    @property
    def finished(self) -> int:
        return sum(count for status, count in self.counts.items() if status not in _UNFINISHED)


class LiveView:
    """Shows a ledger while a search runs. Reads only; never in the way of Tune's loop.

    Args:
        elapsed_s: seconds that earlier sessions of the run took.
    """

    def __init__(
        self, console: Console, config: SearchConfig, ledger: Ledger, *, title: str, elapsed_s: float = 0.0
    ) -> None:
        self._console = console
        self._config = config
        self._ledger = ledger
        self._title = title
        self._max_trials = config.budget.trials or config.search_space.num_combinations
        self._elapsed_before_s = elapsed_s
        self._started = time.monotonic()
        self._finished_at_start = 0
        self._note: str | None = None
        self._closing = threading.Event()
        self._live: Live | None = None
        self._thread: threading.Thread | None = None

    def note(self, text: str) -> None:
        """Shows what is being done beside the trials: starting, ending, evaluating."""
        self._note = text
        if self._live is None and text:
            self._console.print(text)

    def __enter__(self) -> LiveView:
        self._finished_at_start = self.progress().finished
        if self._console.is_terminal:
            self._live = Live(
                console=self._console,
                get_renderable=self._render,
                refresh_per_second=REFRESH_PER_S,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        else:
            self._thread = threading.Thread(target=self._print_lines, name="live-view", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.set()
        if self._live is not None:
            self._live.stop()
        if self._thread is not None:
            self._thread.join()
            self._console.print(self._line())

    def progress(self) -> Progress:
        records = self._ledger.records()
        counts = Counter(record.status for record in records)
        elapsed = time.monotonic() - self._started
        finished = sum(record.status not in _UNFINISHED for record in records)
        return Progress(
            counts=counts,
            epochs=sum(record.epochs for record in records),
            best=self._ledger.best(),
            elapsed_s=elapsed,
            remaining_s=self._remaining_s(finished, elapsed),
        )

    def _remaining_s(self, finished: int, elapsed: float) -> float | None:
        estimates = []
        here = finished - self._finished_at_start
        if self._max_trials is not None and here > 0:
            estimates.append(elapsed / here * max(0, self._max_trials - finished))
        if self._config.budget.time_s is not None:
            estimates.append(max(0.0, self._config.budget.time_s - self._elapsed_before_s - elapsed))
        return min(estimates) if estimates else None

    def _max_epochs(self) -> int | None:
        if self._config.budget.epochs is not None:
            return self._config.budget.epochs
        return None if self._max_trials is None else self._max_trials * self._config.scheduler.max_epochs

    def _render(self) -> RenderableType:
        now = self.progress()
        rows = Table.grid(padding=(0, 2))
        rows.add_column(style="dim", no_wrap=True)
        rows.add_column()
        total = self._max_trials
        bar = ProgressBar(total=total, completed=now.finished, width=30) if total else Text("")
        counted = Table.grid(padding=(0, 1))
        counted.add_row(bar, Text(f"{now.finished}{f' of {total}' if total else ''}"), Text(_counts(now), style="dim"))
        rows.add_row("trials", counted)
        rows.add_row("epochs", _of_budget(now.epochs, self._max_epochs()))
        rows.add_row("best", self._best(now.best))
        rows.add_row("time", _times(now))
        lines: list[RenderableType] = [rows]
        if self._note:
            lines.append(Text(self._note, style="dim"))
        return Panel(Group(*lines), title=self._title, title_align="left", border_style="dim", padding=(0, 1))

    def _best(self, best: TrialRecord | None) -> Text:
        if best is None:
            return Text("none yet", style="dim")
        text = Text(f"{self._ledger.metric} {best.score:.4f}", style="bold green")
        text.append(f"  trial {best.number}, epoch {best.best_epoch}\n", style="default")
        text.append(describe_params(best.params), style="dim")
        return text

    def _line(self) -> str:
        now = self.progress()
        total = f"/{self._max_trials}" if self._max_trials else ""
        best = f"best {self._ledger.metric} {now.best.score:.4f} (trial {now.best.number})" if now.best else "no score"
        epochs = _of_budget(now.epochs, self._max_epochs())
        return f"{now.finished}{total} trials: {_counts(now)}; {epochs} epochs; {best}; {_times(now)}"

    def _print_lines(self) -> None:
        while not self._closing.wait(PLAIN_EVERY_S):
            self._console.print(self._line())


def describe_params(params: object) -> str:
    """Parameters on one line, numbers rounded for reading."""
    items = params.items() if hasattr(params, "items") else []
    return "  ".join(f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in items)


def format_duration(seconds: float) -> str:
    """1:05 for 65 seconds, 2:03:04 above an hour."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def _counts(now: Progress) -> str:
    always = (Status.RUNNING, Status.COMPLETED, Status.STOPPED, Status.FAILED)
    return ", ".join(
        f"{now.counts[s]} {name}"
        for s, name in STATUS_NAMES.items()
        if s in always or (now.counts[s] and s is not Status.WAITING)
    )


def _of_budget(epochs: int, most: int | None) -> str:
    return f"{epochs:,}" if most is None else f"{epochs:,} of at most {most:,}"


def _times(now: Progress) -> str:
    left = "" if now.remaining_s is None else f", about {format_duration(now.remaining_s)} left"
    return f"{format_duration(now.elapsed_s)} elapsed{left}"
