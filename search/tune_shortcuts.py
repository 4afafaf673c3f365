"""What may Tune's loop leave out, and do first? No snapshots that nobody reads; actors go on before proposals."""

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
from search.free_actors import FreeActors
from search.late_groups import LateGroups


@contextmanager
def shortened(slots: Callable[[], int]) -> Iterator[None]:
    """Spares the searches that run inside what costs Tune a third of its time for each trial.

    Tune writes the state of every trial at the end of a search, which takes long after thousands, and we remove it
    unread: the study is the truth. And for each trial it fetches the trainable from Ray's store thrice and unpickles it
    twice, although all trials have the same; its resources are then another object each time, which are compared by
    inspecting signatures. Placement groups come late (`search.late_groups`), and events of many actors together
    (`search.event_batches`). And Tune asks for the next proposal before it gives an actor that has become free to the
    trial that waits for one: the actor then waits for the proposal too. Free actors are kept (`search.free_actors`).

    Args:
        slots: how many trials the cluster holds.
    """
    save, ask = TuneController.save_to_dir, TuneController._maybe_update_trial_queue
    get, contains = registry._Registry.get, registry._Registry.contains
    known: dict[tuple[str, str], Any] = {}

    def get_once(self: registry._Registry, category: str, key: str) -> Any:
        if (category, key) not in known:
            known[category, key] = get(self, category, key)
        return known[category, key]

    def save_once(self: TuneController) -> None:
        if not Path(self.experiment_state_path).exists():  # at the end Tune looks whether there is one
            save(self)

    def give_actors_and_ask(self: TuneController) -> None:
        # Tune gives an actor to any trial that waits, and may hit on one that has been given another just before.
        for _ in range(len(self._pending_trials)):
            if not (self._actor_cache.num_cached_objects and self._pending_trials - self._resetting_trials):
                break
            self._maybe_add_actors()
        ask(self)

    def contains_or_known(self: registry._Registry, category: str, key: str) -> bool:
        return (category, key) in known or bool(contains(self, category, key))

    with _replaced(
        (tune_controller, "PlacementGroupResourceManager", partial(LateGroups, slots=slots)),
        (tune_controller, "RayActorManager", EventBatches),
        (tune_controller, "_ObjectCache", FreeActors),
        (TuneController, "save_to_dir", save_once),
        (TuneController, "_maybe_update_trial_queue", give_actors_and_ask),
        (registry._Registry, "get", get_once),
        (registry._Registry, "contains", contains_or_known),
    ):
        yield


@contextmanager
def _replaced(*changes: tuple[Any, str, Any]) -> Iterator[None]:
    """Attributes of modules or classes that are others inside: of which, name, value."""
    before = [getattr(owner, name) for owner, name, _ in changes]
    for owner, name, value in changes:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for (owner, name, _), value in zip(changes, before, strict=True):
            setattr(owner, name, value)
