"""What may Tune's loop leave out in a search of ours? Snapshots nobody reads, look-ups of one and the same, groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ray.tune import registry
from ray.tune.execution import tune_controller
from ray.tune.execution.tune_controller import TuneController

from search.event_batches import EventBatches
from search.late_groups import LateGroups


@contextmanager
def shortened(slots: Callable[[], int]) -> Iterator[None]:
    """Spares the searches that run inside what costs Tune a third of its time for each trial.

    Tune writes the state of every trial at the end of a search, which takes long after thousands, and we remove it
    unread: the study is the truth. And for each trial it fetches the trainable from Ray's store thrice and unpickles it
    twice, although all trials have the same; its resources are then another object each time, which are compared by
    inspecting signatures. Placement groups come late (`search.late_groups`), and events of many actors together
    (`search.event_batches`).

    Args:
        slots: how many trials the cluster holds.
    """
    save, get, contains = TuneController.save_to_dir, registry._Registry.get, registry._Registry.contains
    known: dict[tuple[str, str], Any] = {}

    def get_once(self: registry._Registry, category: str, key: str) -> Any:
        if (category, key) not in known:
            known[category, key] = get(self, category, key)
        return known[category, key]

    def save_once(self: TuneController) -> None:
        if not Path(self.experiment_state_path).exists():  # at the end Tune looks whether there is one
            save(self)

    groups, actors = tune_controller.PlacementGroupResourceManager, tune_controller.RayActorManager
    tune_controller.PlacementGroupResourceManager = partial(LateGroups, slots=slots)
    tune_controller.RayActorManager = EventBatches
    TuneController.save_to_dir = save_once
    registry._Registry.get = get_once
    registry._Registry.contains = lambda self, category, key: (category, key) in known or contains(self, category, key)
    try:
        yield
    finally:
        tune_controller.PlacementGroupResourceManager, tune_controller.RayActorManager = groups, actors
        TuneController.save_to_dir, registry._Registry.get, registry._Registry.contains = save, get, contains
