"""How does a followed log look? As a local search does: a live view in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from search.live import PLAIN_EVERY_S, REFRESH_PER_S
from search.progress import Progress, from_event, line, panel


class JobView:
    """Shows the lines of a search's log as they come; progress among them moves the view instead of being printed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._now: Progress | None = None
        self._at = 0.0
        self._printed_at: float | None = None
        self._printed_note: str | None = None
        self._printed: Progress | None = None
        self._live: Live | None = None

    def __enter__(self) -> JobView:
        if self._console.is_terminal:
            self._live = Live(
                console=self._console, get_renderable=self._render, refresh_per_second=REFRESH_PER_S, transient=True
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, text: str) -> None:
        """One line of the log."""
        now = from_event(text)
        if now is None:
            self._close_panel()
            self._print(text)
            return
        self._now, self._at = now, time.monotonic()
        if self._live is None:
            self._print_now_and_then(now)

    def show_lost(self, reason: str) -> None:
        """The connection broke, and is being made anew."""
        self._console.print(f"the connection broke ({reason}); trying again", markup=False, style="dim", soft_wrap=True)

    def _close_panel(self) -> None:
        """Once the search is over its last state stays, above the tables that follow."""
        if self._now is None:
            return
        if self._live is not None:
            self._console.print(panel(self._now))
        elif self._now is not self._printed:
            self._print(line(self._now))
        self._now = None

    def _print_now_and_then(self, now: Progress) -> None:
        if now.note is not None and now.note != self._printed_note:
            self._print(now.note)
        self._printed_note = now.note
        clock = time.monotonic()
        if self._printed_at is None:
            self._printed_at = clock
        elif clock - self._printed_at >= PLAIN_EVERY_S:
            self._printed_at, self._printed = clock, now
            self._print(line(now))

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, emoji=False, soft_wrap=True)

    def _render(self) -> RenderableType:
        if self._now is None:
            return Text("")
        return panel(self._now.later(time.monotonic() - self._at))
