"""What is sent off, checked here first: the space, the paths that it names, and the command that runs there."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from cluster.archive import MARK
from cluster.package import Package
from search.config import SearchConfig, load_search
from search.domains import CategoricalDomain
from search.git_commit import VARIABLE, git_commit
from search.includes import included_files
from search.results import RUN_NAME, dated_name
from trainables.errors import ConfigError


def checked_name(name: str, *, option: str) -> str:
    """The name of a run, which becomes that of a folder here.

    Raises:
        ConfigError: if it could be anything but a folder inside the results.
    """
    if not RUN_NAME.fullmatch(name):
        raise ConfigError(
            f"{option}: {name!r} is not a usable name of a run; use letters, digits, dots, hyphens and underscores"
        )
    return name


def new_name(options: argparse.Namespace, config: SearchConfig) -> str:
    """Name of the run that is to begin, chosen here so that it is known here."""
    if options.name is not None:
        return checked_name(options.name, option="--name")
    return dated_name(config.name)


def check_free(folder: Path, *, known: bool) -> None:
    """Refuses to put a run where another lies, or where nothing can be written.

    Args:
        known: whether a folder that was fetched before may be there.

    Raises:
        ConfigError: if the folder is there already, and is not such a one; or cannot be made.
    """
    if folder.exists() and not (known and (folder / MARK).is_file()):
        remedy = "give another --results folder" if known else "give another --name, or go on with --resume"
        raise ConfigError(f"{folder}: there is a run of this name here, which would be overwritten; {remedy}")
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"--results: nothing can be written to {there}; give another folder, or --no-fetch")


def read_space(options: argparse.Namespace, root: Path) -> tuple[SearchConfig, Path]:
    """The search, valid, and its file relative to the folder that is sent.

    Raises:
        ConfigError: if it is not valid, not in that folder, or names paths that the cluster cannot have.
    """
    config = load_search(options.space, overrides=options.overrides)
    path = Path(os.path.normpath(options.space.absolute()))  # `..` of the command line, not of links
    if not path.is_relative_to(root):
        raise ConfigError(f"{options.space}: is not in {root}, which is what is sent; copy it there")
    return config, path.relative_to(root)


def check_paths(config: SearchConfig, space: Path, package: Package) -> None:
    """Refuses a search that names images or weights which are here only.

    Raises:
        ConfigError: naming them.
    """
    if space not in package.files:
        raise ConfigError(f"{space}: is left out of the package by an ignore file; take it back with !/{space}")
    for file in included_files(package.root / space):
        if not _is_sent(file, package):
            raise ConfigError(f"{space}: include: {file} is not sent; have it in {package.root}, and in no ignore file")
    for index, earlier in config.earlier_runs.items():
        if "://" not in earlier.run and not _is_absolute(earlier.run):
            raise ConfigError(
                f"{space}: start_from.{index}.run: {earlier.run} is a run here, and results are not sent; give the "
                "path of a run that the nodes see, or its address in an object store"
            )
    data = config.task.data
    if data.root is None and data.name not in ("digits", "csv"):
        raise ConfigError(
            f"{space}: task.data.root: {data.name} would lie in data/ of the job's folder, which is deleted after it; "
            "say where its files lie on the nodes, or are to be downloaded to: -o task.data.root=/PATH/ON/THE/NODES"
        )
    for name, value in (("root", data.root), ("csv", data.csv)):
        hub = data.name == "huggingface" and value is not None and not Path(value).exists()
        if value is not None and not hub and not _is_absolute(value):
            raise ConfigError(
                f"{space}: task.data.{name}: {value} is relative to this folder, and data are not sent; copy them to "
                f"the nodes once, and give their path there: -o task.data.{name}=/PATH/ON/THE/NODES"
            )
    for value in _weights(config):
        sent = any(file == Path(value) or Path(value) in file.parents for file in package.files)
        if not _is_absolute(value) and Path(value).exists() and not sent:
            raise ConfigError(
                f"{space}: space.weights: {value} is here only; copy it to the nodes, and give its path there, or take "
                "it into the package with a line !PATTERN in .vistuneignore"
            )


def search_command(options: argparse.Namespace, *, space: Path | None, run: str, storage: str | None) -> list[str]:
    """What the head node runs. Progress comes as events; tables are as wide as the terminal here."""
    given = ["--resume", run] if space is None else [space.as_posix(), "--name", run]
    for override in options.overrides:
        given += ["-o", override]
    if options.finish:
        given.append("--finish")
    for more in options.extend:
        given += ["--extend", more]
    if storage is not None:
        given += ["--storage-path", storage]
    if options.tensorboard:
        given.append("--tensorboard")
    variables = {"COLUMNS": str(shutil.get_terminal_size((120, 24)).columns), VARIABLE: git_commit() or ""}
    settings = [f"{name}={value}" for name, value in variables.items() if value]
    return ["env", *settings, "python", "-m", "search.run", *given, "--progress", "events"]


def pack_command(run: str, *, storage: str | None, max_mib: float) -> list[str]:
    """What the head node runs to send a run back."""
    where = [] if storage is None else ["--storage-path", storage]
    return ["python", "-m", "cluster.pack", run, *where, "--fetch-mib", f"{max_mib:g}"]


def _weights(config: SearchConfig) -> list[str]:
    param = config.space.get("weights")
    values = param.values if isinstance(param, CategoricalDomain) else (param,)
    return [value for value in values if isinstance(value, str)]


def _is_sent(file: Path, package: Package) -> bool:
    whole = Path(os.path.normpath(file.expanduser().absolute()))
    return whole.is_relative_to(package.root) and whole.relative_to(package.root) in package.files


def _is_absolute(value: str) -> bool:
    return value.startswith("~") or Path(value).is_absolute()
