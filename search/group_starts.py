"""Does a worker group that could not be formed give its resources back? Not by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.worker_group import worker_group
from ray.util.placement_group import PlacementGroup, remove_placement_group


class FreesFailedStarts(WorkerGroupCallback):  # type: ignore[misc]
    """Frees what is left of an attempt to form a group, before the controller makes the next.

    Where a node is lost while a group forms on it, Ray Train (2.60) keeps the workers that had started and their
    placement group, and tries again for ever, on resources that the first attempt holds. Ray Train takes callbacks of
    its internal kinds from `RunConfig` for the sake of such workarounds; this one runs in the controller, which has one
    group at a time.
    """

    def __init__(self) -> None:
        self._made: list[PlacementGroup] = []
        self._watches = False

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        """Called by the controller ahead of every attempt."""
        del worker_group_context
        while self._made:
            remove_placement_group(self._made.pop())  # no more than a look where it is removed already
        if not self._watches:
            worker_group.placement_group = self._noting(worker_group.placement_group)
            self._watches = True

    def _noting(self, make: Callable[..., PlacementGroup]) -> Callable[..., PlacementGroup]:
        def placement_group(*arguments: Any, **options: Any) -> PlacementGroup:
            made = make(*arguments, **options)
            self._made.append(made)
            return made

        return placement_group
