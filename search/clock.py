"""How long has a search run, over all its sessions, and when is it to end?"""

from __future__ import annotations

import time
from typing import Any

from ray.tune.stopper import Stopper

from search.halt import Halt
from search.study import StudyStore
from search.trial_attrs import ELAPSED_S


class Clock:
    """Seconds a search has taken over all its sessions; kept in the study, so that a time budget outlives a kill."""

    SAVE_EVERY_S = 10.0

    def __init__(self, store: StudyStore, *, halt: Halt, limit_s: float | None) -> None:
        self._store = store
        self._halt = halt
        self._limit_s = limit_s
        self._before: float = store.study.user_attrs.get(ELAPSED_S, 0.0)
        self._started = time.monotonic()
        self._saved = self._started

    @property
    def elapsed_s(self) -> float:
        return self._before + time.monotonic() - self._started

    def tick(self) -> None:
        """Ends the search when its time is over."""
        if self._limit_s is not None and self.elapsed_s >= self._limit_s:
            self._halt.because(f"the budget of {self._limit_s:g} s is used up")
        if time.monotonic() - self._saved > self.SAVE_EVERY_S and not self._halt.requested:
            self.save()

    def save(self) -> None:
        self._store.study.set_user_attr(ELAPSED_S, round(self.elapsed_s, 3))
        self._saved = time.monotonic()


class HaltStopper(Stopper):  # type: ignore[misc]
    """Tells Tune's loop that the search is to end."""

    def __init__(self, halt: Halt, clock: Clock) -> None:
        self._halt = halt
        self._clock = clock

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        del trial_id, result
        return False

    def stop_all(self) -> bool:
        self._clock.tick()
        return self._halt.requested

    def __getstate__(self) -> dict[str, Any]:
        return {}  # pickled with the Tuner and never read back
