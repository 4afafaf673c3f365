"""In which folder do runs lie? The one that was given, the cluster's, or `results` where the search was started."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from search.mirrored_run import fetch_run
from search.results import RunPaths
from trainables.errors import ConfigError, first_line
from trainables.mirrors import local_path, mirror_of, shown
from trainables.object_store import has_bucket, names_in

# Ray unpacks the working directory of a job into a folder of this name, and deletes it some time after the job.
_PACKAGE = "_ray_pkg_"
_VARIABLE = "VISTUNE_RESULTS"


def storage_root(given: Path | None) -> Path:
    """The folder that holds runs: the given one, else $VISTUNE_RESULTS, else `results`; in a job ~/vistune/results.

    Raises:
        ConfigError: if it is relative in a job, whose working directory is deleted after it.
    """
    chosen, where = (given, "--storage-path") if given is not None else (_from_environment(), f"${_VARIABLE}")
    if not in_job_package(Path.cwd()):
        return chosen or Path("results")
    if chosen is not None and not chosen.is_absolute():
        raise ConfigError(
            f"{where}: {chosen} is relative, and a job's working directory is deleted after it; "
            "give an absolute path, on a cluster of several nodes one that they share"
        )
    return chosen or Path.home() / "vistune" / "results"


def folder_of_runs(given: str) -> Path:
    """What `--storage-path` names, for argparse: a folder, or the local copy of one in an object store."""
    try:
        return local_path(given)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_storage_path(parser: argparse.ArgumentParser) -> None:
    """Has a command that reads runs take the folder of runs, for `storage_root`."""
    parser.add_argument(
        "--storage-path",
        type=folder_of_runs,
        help="folder that holds runs, or s3:// or gs://BUCKET/FOLDER (default: $VISTUNE_RESULTS, else results)",
    )


@contextmanager
def store_reached(path: Path) -> Iterator[None]:
    """Says in a sentence that a store, in which runs are looked for, cannot be reached or has no such bucket.

    Raises:
        ConfigError: naming the address, and what a person can do.
    """
    mirror = mirror_of(path)
    if mirror is None:
        yield
        return
    try:
        if not has_bucket(mirror):
            raise ConfigError(f"{mirror.uri}: there is no bucket {mirror.bucket}; make it first, or give another one")
        yield
    except OSError as error:
        raise ConfigError(
            f"{mirror.uri}: cannot be reached ({error.strerror or first_line(error)}); see to the network, and to "
            f"credentials and endpoint in the environment ({mirror.variables})"
        ) from error


def find_run(run: str, *, storage_path: Path) -> RunPaths:
    """The run with that name under the storage path, or at that very path.

    Raises:
        ConfigError: if there is none, which names the runs there are; or if their store cannot be reached.
    """
    with store_reached(storage_path), store_reached(local_path(run)):
        return _find_run(run, storage_path=storage_path)


def _find_run(run: str, *, storage_path: Path) -> RunPaths:
    candidates = [local_path(run)]
    leads_out = mirror_of(storage_path) is not None and ".." in Path(run).parts  # of the copies, or into another's
    if "://" not in run and not leads_out:
        candidates.insert(0, storage_path / run)
    for candidate in candidates:
        paths = RunPaths(candidate)
        fetch_run(paths)
        if paths.config.is_file():
            return paths
    if "://" in run:
        raise ConfigError(f"{run}: there is no run; python -m search.list --storage-path {run.rpartition('/')[0]}")
    if mirror_of(storage_path) is not None:
        found = ", ".join(names_in(storage_path)[-8:]) or "none"
        raise ConfigError(f"{run}: no such run in {shown(storage_path)}; runs there: {found}")
    known = sorted((path.parent for path in storage_path.glob("*/config.yaml")), key=lambda path: path.stat().st_mtime)
    found = ", ".join(path.name for path in known[-8:]) or "none"
    raise ConfigError(f"{run}: no such run under {storage_path}; runs there: {found}")


def in_job_package(folder: Path) -> bool:
    """Whether a folder belongs to the unpacked working directory of a Ray job."""
    return any(part.startswith(_PACKAGE) for part in folder.absolute().parts)


def _from_environment() -> Path | None:
    value = os.environ.get(_VARIABLE)
    return local_path(value) if value else None
