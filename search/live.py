"""What is the search doing right now? A live view in a terminal, plain lines elsewhere, events for a log."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Literal

from rich.console import Console, RenderableType
from rich.live import Live

from search.config import SearchConfig
from search.ledger import Ledger, Status
from search.progress import Best, Progress, describe_params, line, panel
from search.restarts import Restarts

ProgressForm = Literal["auto", "events"]

PLAIN_EVERY_S = 10.0
REFRESH_PER_S = 4.0
# Events are for a live view somewhere else. A log is kept and read again from its start at every attachment, so they
# become rarer as the search grows older: about 10,000 in a day.
EVENT_EVERY_S = (1.0, 10.0)
_EVENTS_SLOW_DOWN = 1000


class LiveView:
    """Shows a ledger while a search runs. Reads only; never in the way of Tune's loop.

    Args:
        elapsed_s: seconds that earlier sessions of the run took.
        form: how it is shown: `auto` for people, `events` for `search.progress.from_event`.
    """

    def __init__(
        self,
        console: Console,
        config: SearchConfig,
        ledger: Ledger,
        *,
        title: str,
        elapsed_s: float = 0.0,
        form: ProgressForm = "auto",
    ) -> None:
        self._console = console
        self._config = config
        self._ledger = ledger
        self._title = title
        self._form = form
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
            self._print(text if self._form == "auto" else self.progress().to_event())

    def __enter__(self) -> LiveView:
        self._finished_at_start = self.progress().finished
        if self._form == "auto" and self._console.is_terminal:
            self._live = Live(
                console=self._console,
                get_renderable=self._render,
                refresh_per_second=REFRESH_PER_S,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        else:
            print_them = self._print_lines if self._form == "auto" else self._print_events
            self._thread = threading.Thread(target=print_them, name="live-view", daemon=True)
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
            self._note = None
            self._print(line(self.progress()) if self._form == "auto" else self.progress().to_event())

    def progress(self) -> Progress:
        totals = self._ledger.totals
        elapsed = time.monotonic() - self._started
        finished = totals.finished
        best = self._ledger.best()
        return Progress(
            title=self._title,
            metric=self._ledger.metric,
            counts={str(status): count for status, count in totals.counts.items() if count},
            restarts=Restarts(lost=totals.lost, preempted=totals.preempted).words,
            finished=finished,
            max_trials=self._max_trials,
            epochs=totals.epochs,
            max_epochs=self._max_epochs(),
            best=None
            if best is None
            else Best(best.score or 0.0, best.number, best.best_epoch or 0, describe_params(best.params)),
            elapsed_s=elapsed,
            remaining_s=self._remaining_s(finished, elapsed, running=totals.counts.get(Status.RUNNING, 0)),
            note=self._note,
        )

    def _remaining_s(self, finished: int, elapsed: float, *, running: int) -> float | None:
        estimates = []
        here = finished - self._finished_at_start
        left = None if self._max_trials is None else max(0, self._max_trials - finished)
        # How long the last ones take, once none is to begin any more, the others do not tell.
        if left is not None and here > 0 and (left == 0 or left > running):
            estimates.append(elapsed / here * left)
        if self._config.budget.time_s is not None:
            estimates.append(max(0.0, self._config.budget.time_s - self._elapsed_before_s - elapsed))
        return min(estimates) if estimates else None

    def _max_epochs(self) -> int | None:
        if self._config.budget.epochs is not None:
            return self._config.budget.epochs
        return None if self._max_trials is None else self._max_trials * self._config.scheduler.max_epochs

    def _render(self) -> RenderableType:
        return panel(self.progress())

    def _print_lines(self) -> None:
        while not self._closing.wait(PLAIN_EVERY_S):
            self._print(line(self.progress()))

    def _print_events(self) -> None:
        """A moment whenever something has changed, and at least now and then, so that the clock is seen to go."""
        least, most = EVENT_EVERY_S
        told: tuple[object, ...] = ()
        told_at = -most
        while not self._closing.wait(min(most, max(least, (time.monotonic() - self._started) / _EVENTS_SLOW_DOWN))):
            now = self.progress()
            seen = (now.counts, now.epochs, now.best, now.note)
            if seen != told or now.elapsed_s - told_at >= most:
                told, told_at = seen, now.elapsed_s
                self._print(now.to_event())

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, emoji=False, soft_wrap=True)
