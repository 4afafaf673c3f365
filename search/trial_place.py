"""Can a trial be trained here? Only where the run's folder and its images are those of the driver."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from search.report_source import read_json
from search.results import RunPaths
from trainables.errors import ConfigError, DataError
from trainables.mirrors import mirror_of, require_private, shown
from trainables.object_store import size_of

if TYPE_CHECKING:
    from search.launch import TrialTask
    from trainables.config import DataConfig


class UnfitNodeError(ConfigError):
    """A node lacks what all nodes of a search share: no trial could be trained there, and none is to blame."""


def require_place(task: TrialTask) -> None:
    """Refuses to train where the run's folder or the images are not the driver's.

    What a trial wrote would be lost; and other images would be divided anew, with some of the test split among those
    that it learns from.

    Raises:
        UnfitNodeError: naming this node.
        ConfigError: if others may write where it keeps its copy of a run that is in a store.
    """
    from trainables.trial_state import load_task

    node = socket.gethostname()
    paths = RunPaths(Path(task.trial_dir).parents[1])
    require_private(paths.root)
    if size_of(paths.environment) is None:
        raise UnfitNodeError(
            f"{shown(paths.root)}: node {node} does not see the run's folder; mount it "
            "there at this path, or give --storage-path a folder that all nodes share"
        )
    if task.fingerprint is None:
        return
    data = task.config.data
    try:
        found = load_task(data, task.config.split)[0].fingerprint
        require_same_images(data, found, began_with=task.fingerprint)
    except DataError as error:
        raise UnfitNodeError(f"node {node}: {error}") from error


@contextmanager
def at_its_place(task: TrialTask) -> Iterator[None]:
    """`require_place`; after the training, of whatever end, its copies of what a store keeps do not fill this node."""
    require_place(task)
    try:
        yield
    finally:
        leave_place(Path(task.trial_dir))


def leave_place(trial_dir: Path) -> None:
    """Removes this node's copies of a trial that no longer trains in this process, unless the driver reads them."""
    from search.mirrored_run import is_held_here
    from trainables.checkpoint import TrialFiles

    if mirror_of(trial_dir) is not None and not is_held_here(RunPaths(trial_dir.parents[1])):
        TrialFiles(trial_dir).drop_copies()


def require_same_images(data: DataConfig, found: str, *, began_with: str | None) -> None:
    """Refuses images that have changed since a run began.

    Args:
        found: fingerprint of the images as they are now.
        began_with: as the run recorded it.

    Raises:
        DataError: if they are not the same.
    """
    if found != began_with:
        raise DataError(
            f"{data.root or data.csv or data.name}: the images are not those the run began with "
            f"(fingerprint {found}, then {began_with or 'unknown'}); restore them, or start a new run"
        )


def require_recorded_images(paths: RunPaths, data: DataConfig, found: str) -> None:
    """The same by what a run has recorded; where nothing did, any images are taken."""
    recorded = recorded_fingerprint(paths)
    if recorded is not None:
        require_same_images(data, found, began_with=recorded)


def recorded_fingerprint(paths: RunPaths) -> str | None:
    """Of the images that a run began with."""
    environment = read_json(paths.environment) or {}
    data = environment.get("data")
    found = data.get("fingerprint") if isinstance(data, dict) else None
    return found if isinstance(found, str) else None
