"""Does a worker group that could not be formed give its resources back? Not by itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ray._private.state import state as ray_state
from ray.train.v2._internal.callbacks import placement_group_callback
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.controller import placement_group_cleaner
from ray.train.v2._internal.execution.worker_group import worker_group
from ray.util.placement_group import (
    PlacementGroup,
    get_placement_group,
    placement_group_table,
    remove_placement_group,
)

# Of the placement groups made here. Next in the name is an actor that lives as long as the driver of its group.
_PREFIX = "vistune-group"


class FreesAndGoes(placement_group_cleaner.PlacementGroupCleaner):  # type: ignore[misc]
    """Ray Train's actor that frees the group of a lost controller, and ends with it in any case.

    It outlives its controller. Ray Train (2.60) asks it to watch in a call of its own, which never comes where the
    controller is lost while this actor's process starts; and it learns from a dashboard who is gone. Without either it
    would stay on the head node until the cluster ends.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        placement_group_cleaner.is_actor_alive = _is_alive
        self.start_monitoring()


def _is_alive(actor_id: str, timeout: float) -> bool:
    del timeout  # of requests to the dashboard
    return bool(ray_state.actor_table(actor_id).get("State", "DEAD") != "DEAD")


class FreesFailedStarts(WorkerGroupCallback):  # type: ignore[misc]
    """Frees what is left of an attempt to form a group, before the controller makes the next.

    Where a node is lost while a group forms on it, Ray Train (2.60) keeps the workers that had started and their
    placement group, and tries again for ever, on resources that the first attempt holds. Ray Train takes callbacks of
    its internal kinds from `RunConfig` for the sake of such workarounds; this one runs in the controller, which has one
    group at a time. Placement groups get names, by which `free_orphans` knows them, and their cleaner is one that ends
    with its controller in any case.

    Args:
        companion: number of an actor that lives as long as the driver of the group.
    """

    def __init__(self, companion: str) -> None:
        self._companion = companion
        self._made: list[PlacementGroup] = []
        self._num_made = 0
        self._watches = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # Unpickled in the controller, ahead of Ray Train's own callback, which makes the actor.
        placement_group_callback.PlacementGroupCleaner = FreesAndGoes

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
            self._num_made += 1
            made = make(*arguments, **options, name=f"{_PREFIX}-{self._companion}-{self._num_made}")
            self._made.append(made)
            return made

        return placement_group


def free_orphans() -> None:
    """Frees the placement groups of this search whose driver is gone.

    Ray frees what an actor has made only once its whole job is over, and Ray Train's `PlacementGroupCleaner` knows of a
    group once it has formed: where a driver is lost before, nobody else would, and the next group would wait for its
    resources for ever.
    """
    for known in placement_group_table().values():
        prefix, _, rest = known["name"].rpartition(_PREFIX)
        if prefix or not rest or known["state"] == "REMOVED":
            continue
        if ray_state.actor_table(rest.split("-")[1]).get("State") == "DEAD":
            with suppress(ValueError):  # the name of another search's group is not known here
                remove_placement_group(get_placement_group(known["name"]))
