"""Does a training that Ray Tune knows nothing of still do anything? Its epochs are told to an actor of the driver."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import ray

from search.cluster_state import start_here
from search.hang_limit import HangLimit, Heard
from search.resources_config import ResourcesConfig

# What a training tells when it begins: the number of its node.
NODE = "node"


class Ear:
    """What trainings tell of themselves, until the driver asks; an actor without any resources."""

    def __init__(self) -> None:
        self._told: list[tuple[str, Mapping[str, Any]]] = []

    def tell(self, name: str, metrics: Mapping[str, Any]) -> None:
        """A training has begun, and says on which node (`NODE`), or has finished an epoch."""
        self._told.append((name, metrics))

    def take(self) -> list[tuple[str, Mapping[str, Any]]]:
        """What was told since the driver last asked."""
        told, self._told = self._told, []
        return told


class Pulse:
    """Which trainings hang, by the rule of `resources.hang_timeout`. One that waits for resources does not.

    Attributes:
        ear: the handle of an `Ear`, for the trainings.
    """

    def __init__(self, resources: ResourcesConfig) -> None:
        self.ear: Any = start_here(Ear)
        self._limit = HangLimit(resources)
        # None until it has begun: it waits for resources.
        self._heard: dict[str, Heard | None] = {}
        self._nodes: dict[str, str] = {}

    def watch(self, name: str) -> None:
        """A training is to begin.

        Args:
            name: that no other has, not even an earlier attempt at the same.
        """
        self._heard[name] = None

    def forget(self, name: str) -> None:
        """A training has ended."""
        del self._heard[name]
        self._nodes.pop(name, None)

    def node(self, name: str) -> str | None:
        """Where a training runs, as far as that has been heard."""
        self._listen()
        return self._nodes.get(name)

    def silent(self) -> dict[str, str]:
        """Trainings that hang, with what is to be said of each."""
        self._listen()
        now = time.monotonic()
        begun = {name: heard for name, heard in self._heard.items() if heard is not None}
        self._limit.excuse(begun.values(), now=now)
        return {name: self._limit.words(heard) for name, heard in begun.items() if self._limit.is_over(heard, now=now)}

    def close(self) -> None:
        """Ends the actor."""
        ray.kill(self.ear)

    def _listen(self) -> None:
        now = time.monotonic()
        for name, metrics in ray.get(self.ear.take.remote()):
            if name not in self._heard:
                continue
            if NODE in metrics:
                self._nodes[name] = metrics[NODE]
            heard = self._heard[name] = self._heard[name] or Heard(now)
            self._limit.report(heard, metrics, now=now)
