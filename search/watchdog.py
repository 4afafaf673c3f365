"""Does a trial still do anything? One that has reported nothing for too long is ended."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.tune import Callback
from ray.tune.experiment import Trial

from search.hang_limit import HangLimit, Heard
from search.launch import FAILURE
from search.resources_config import ResourcesConfig
from search.restarts import Interruption, Kind
from search.schedulers import FullScheduler

_log = logging.getLogger(__name__)


@dataclass
class _Watched:
    """A trial in training."""

    trial: Trial
    heard: Heard


class Watchdog(Callback):  # type: ignore[misc]
    """Kills the process of a trial that hangs; that it did is left with the scheduler, where the searcher looks.

    Tune would wait for it for ever, and could not stop it either: a process that hangs answers nothing.

    Args:
        on_hang: called with the number of such a trial.
        placed_s: for how many seconds a trial has been where it trains, None while it waits for its turn, which is no
            hang; asked before it is ended.
    """

    EVERY_S = 1.0

    def __init__(
        self,
        scheduler: FullScheduler,
        resources: ResourcesConfig,
        *,
        on_hang: Callable[[int], None] = lambda _: None,
        placed_s: Callable[[int], float | None] = lambda _: math.inf,
    ) -> None:
        self._on_hang = on_hang
        self._placed_s = placed_s
        self._scheduler = scheduler
        self._limit = HangLimit(resources)
        self._watched: dict[str, _Watched] = {}
        self._looked_at = 0.0

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        del iteration, trials, info
        self._watched[trial.trial_id] = _Watched(trial, Heard(time.monotonic()))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        del iteration, trials, info
        watched = self._watched.get(trial.trial_id)
        if watched is not None:
            self._limit.report(watched.heard, {} if FAILURE in result else result, now=time.monotonic())

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        del iteration, trials, info
        self._watched.pop(trial.trial_id, None)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        del iteration, trials, info
        self._watched.pop(trial.trial_id, None)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        del iteration, trials, info
        now = time.monotonic()
        if now - self._looked_at < self.EVERY_S:
            return
        self._looked_at = now
        self._limit.excuse((watched.heard for watched in self._watched.values()), now=now)
        for watched in list(self._watched.values()):
            if self._limit.is_over(watched.heard, now=now):
                self._end(watched, now=now)

    def _end(self, watched: _Watched, *, now: float) -> None:
        number = int(watched.trial.config["number"])
        placed_s = self._placed_s(number)
        watched.heard.since = max(watched.heard.since, now - (placed_s or 0.0))
        if not self._limit.is_over(watched.heard, now=now):
            return
        said = self._limit.words(watched.heard)
        self._scheduler.errors[number] = Interruption(Kind.HUNG, said)
        _log.warning("trial %d hangs: %s", number, said)
        del self._watched[watched.trial.trial_id]
        self._on_hang(number)
        actor = watched.trial.temporary_state.ray_actor
        if actor is not None:
            ray.kill(actor)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # pickled with the Tuner and never read back
