"""Does a trial still do anything? One that has reported nothing for too long is ended."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.util import placement_group_table

from search.launch import FAILURE
from search.resources_config import ResourcesConfig
from search.restarts import Interruption, Kind
from search.schedulers import FullScheduler

_log = logging.getLogger(__name__)

# Without a limit of the person's: so many times the longest epoch, and at least so many seconds.
_TIMES = 20.0
_LEAST_S = 30 * 60.0
_LEAST_BEFORE_FIRST_S = 6 * 3600.0


@dataclass
class _Watched:
    """A trial in training.

    Attributes:
        since: when it was last heard of.
        longest_s: its longest time between two reports; None before the second.
    """

    trial: Trial
    since: float
    longest_s: float | None = None


class Watchdog(Callback):  # type: ignore[misc]
    """Kills the process of a trial that hangs; that it did is left with the scheduler, where the searcher looks.

    Tune would wait for it for ever, and could not stop it either: a process that hangs answers nothing.

    Args:
        on_hang: called with the number of such a trial.
    """

    EVERY_S = 1.0

    def __init__(
        self, scheduler: FullScheduler, resources: ResourcesConfig, *, on_hang: Callable[[int], None] = lambda _: None
    ) -> None:
        self._on_hang = on_hang
        self._scheduler = scheduler
        self._limit_s = resources.hang_timeout_s
        self._in_groups = resources.has_groups
        self._watched: dict[str, _Watched] = {}
        self._longest_s = 0.0
        self._looked_at = 0.0

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        del iteration, trials, info
        self._watched[trial.trial_id] = _Watched(trial, since=time.monotonic())

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        del iteration, trials, info
        watched = self._watched.get(trial.trial_id)
        if watched is None:
            return
        now = time.monotonic()
        if FAILURE not in result and "train_s" in result:
            epoch_s = float(result["train_s"]) + float(result.get("val_s", 0.0))
            # Where trials share a device, an epoch is told as its share of the time, and all of them take their turns.
            between_s = 0.0 if watched.longest_s is None else now - watched.since
            watched.longest_s = max(epoch_s, between_s, watched.longest_s or 0.0)
            self._longest_s = max(watched.longest_s, self._longest_s)
        watched.since = now

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
        for watched in list(self._watched.values()):
            if now - watched.since > self._limit_of(watched):
                self._end(watched, now=now)

    def _limit_of(self, watched: _Watched) -> float:
        if self._limit_s is not None:
            return self._limit_s
        if watched.longest_s is not None:
            return max(_LEAST_S, _TIMES * watched.longest_s)
        return max(_LEAST_BEFORE_FIRST_S, _TIMES * self._longest_s)

    def _end(self, watched: _Watched, *, now: float) -> None:
        if self._in_groups and watched.longest_s is None and _a_group_waits():
            watched.since = now  # its driver has started, its workers perhaps have not: that is no hang
            return
        number = int(watched.trial.config["number"])
        limit = f"{self._limit_of(watched):.0f} s"
        said = f"no epoch was reported for {limit}; see resources.hang_timeout"
        self._scheduler.errors[number] = Interruption(Kind.HUNG, said)
        _log.warning("trial %d hangs: %s", number, said)
        del self._watched[watched.trial.trial_id]
        self._on_hang(number)
        actor = watched.trial.temporary_state.ray_actor
        if actor is not None:
            ray.kill(actor)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # pickled with the Tuner and never read back


def _a_group_waits() -> bool:
    """Whether some workers wait for resources."""
    return any(group["state"] in ("PENDING", "PREPARED", "RESCHEDULING") for group in placement_group_table().values())
