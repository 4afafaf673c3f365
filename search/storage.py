"""In which folder do runs lie? The one that was given, the cluster's, or `results` where the search was started."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from search.results import RunPaths
from trainables.errors import ConfigError

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


def require_run(trial_dir: Path) -> None:
    """Refuses to train where the run's folder is not the driver's: what the trial writes would be lost.

    Raises:
        ConfigError: naming this node.
    """
    paths = RunPaths(trial_dir.parents[1])
    if not paths.environment.is_file():
        raise ConfigError(
            f"{paths.root}: node {socket.gethostname()} does not see the run's folder; mount it there at this path, or "
            "give --storage-path a folder that all nodes share"
        )


def in_job_package(folder: Path) -> bool:
    """Whether a folder belongs to the unpacked working directory of a Ray job."""
    return any(part.startswith(_PACKAGE) for part in folder.absolute().parts)


def _from_environment() -> Path | None:
    value = os.environ.get(_VARIABLE)
    return Path(value).expanduser() if value else None
