"""What may Tune's loop leave out in a search of ours? Snapshots that nobody reads, and look-ups of one and the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.tune import registry
from ray.tune.execution.tune_controller import TuneController


@contextmanager
def shortened() -> Iterator[None]:
    """Spares the searches that run inside what costs Tune a third of its time for each trial.

    Tune writes the state of every trial at the end of a search, which takes long after thousands, and we remove it
    unread: the study is the truth. And for each trial it fetches the trainable from Ray's store thrice and unpickles it
    twice, although all trials have the same; its resources are then another object each time, which are compared by
    inspecting signatures.
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

    TuneController.save_to_dir = save_once
    registry._Registry.get = get_once
    registry._Registry.contains = lambda self, category, key: (category, key) in known or contains(self, category, key)
    try:
        yield
    finally:
        TuneController.save_to_dir, registry._Registry.get, registry._Registry.contains = save, get, contains
