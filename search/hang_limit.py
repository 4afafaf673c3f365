"""How long may a training say nothing before it is taken to hang?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from search.cluster_state import WaitingGroups
from search.resources_config import ResourcesConfig

# Without a limit of the person's: so many times the longest epoch, and at least so many seconds.
_TIMES = 20.0
_LEAST_S = 30 * 60.0
_LEAST_BEFORE_FIRST_S = 6 * 3600.0


@dataclass
class Heard:
    """A training, and when it was last heard of.

    Attributes:
        since: by `time.monotonic`.
        longest_s: its longest epoch, or time between two reports; None before the first.
    """

    since: float
    longest_s: float | None = None


class HangLimit:
    """The limit of `resources.hang_timeout`; without one it follows from the epochs that trainings report."""

    def __init__(self, resources: ResourcesConfig) -> None:
        self._given_s = resources.hang_timeout_s
        self._groups_wait = WaitingGroups() if resources.has_groups else None
        self.longest_s = 0.0

    def report(self, heard: Heard, metrics: Mapping[str, Any], *, now: float) -> None:
        """A training has reported an epoch."""
        if "train_s" in metrics:
            epoch_s = float(metrics["train_s"]) + float(metrics.get("val_s", 0.0))
            # Where trials share a device, an epoch is told as its share of the time, and all of them take their turns.
            between_s = 0.0 if heard.longest_s is None else now - heard.since
            heard.longest_s = max(epoch_s, between_s, heard.longest_s or 0.0)
            self.longest_s = max(heard.longest_s, self.longest_s)
        heard.since = now

    def seconds(self, heard: Heard) -> float:
        """How long a training may be silent."""
        if self._given_s is not None:
            return self._given_s
        if heard.longest_s is not None:
            return max(_LEAST_S, _TIMES * heard.longest_s)
        return max(_LEAST_BEFORE_FIRST_S, _TIMES * self.longest_s)

    def excuse(self, trainings: Iterable[Heard], *, now: float) -> None:
        """While workers wait for resources, those before their first epoch do not hang: their drivers have started."""
        new = [heard for heard in trainings if heard.longest_s is None]
        if new and self._groups_wait is not None and self._groups_wait():
            for heard in new:
                heard.since = now

    def is_over(self, heard: Heard, *, now: float) -> bool:
        """Whether a training has been silent for too long."""
        return now - heard.since > self.seconds(heard)

    def words(self, heard: Heard) -> str:
        """What is said of a training that hangs."""
        return f"no epoch was reported for {self.seconds(heard):.0f} s; see resources.hang_timeout"
