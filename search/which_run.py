"""Which search is meant, and where does its run lie? A new one, or one that is there; touches nothing on disk."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.errors import ConfigError

if TYPE_CHECKING:
    from search.config import SearchConfig
    from search.results import RunPaths


@dataclass(frozen=True)
class ChosenRun:
    """A validated search and its run.

    Attributes:
        resumed: whether it goes on with what is there.
    """

    config: SearchConfig
    paths: RunPaths
    resumed: bool


def choose_run(options: argparse.Namespace) -> ChosenRun:
    """The run that the arguments of `search.run` mean.

    Raises:
        ConfigError: if the search is not valid, or its run is there and was not to be, or the reverse.
    """
    from search.results import RUN_NAME, dated_name
    from search.storage import storage_root, store_reached

    storage = storage_root(options.storage_path)
    if options.resume:
        return _known(options.resume, storage, extend=options.extend)
    config = _read(options)
    name = dated_name(config.name) if options.name is None else options.name
    if not RUN_NAME.fullmatch(name):
        raise ConfigError(
            f"--name: {name!r} is not a usable folder name; use letters, digits, dots, hyphens and underscores"
        )
    with store_reached(storage):
        return _new(config, storage / name, or_resume=options.or_resume)


def _known(run: str, storage: Path, *, extend: list[str]) -> ChosenRun:
    from search.config import load_search
    from search.storage import find_run

    paths = find_run(run, storage_path=storage)
    config = load_search(paths.config)
    if extend:
        from search.extend import extended, used_by
        from search.report_source import read_json

        summary = read_json(paths.summary) or {}
        ended = summary.get("state") in ("finished", "failed")
        config = extended(config, used_by(config, paths), extend, ended=ended)
    return ChosenRun(config, paths, resumed=True)


def _read(options: argparse.Namespace) -> SearchConfig:
    from search.config import load_search, with_absolute_root
    from search.earlier_runs import find_earlier

    config = with_absolute_root(load_search(options.space, overrides=options.overrides))
    find_earlier(config)
    return config


def _new(config: SearchConfig, folder: Path, *, or_resume: bool) -> ChosenRun:
    from search.mirrored_run import is_there
    from search.results import RunPaths
    from trainables.mirrors import mirror_of, shown

    paths = RunPaths(folder)
    if not is_there(paths):
        return ChosenRun(config, paths, resumed=False)
    where, name = shown(paths.root), paths.name
    if not or_resume:
        raise ConfigError(f"{where}: a run of this name exists; go on with --resume {name}, or give another --name")
    if mirror_of(folder) is not None or paths.config.is_file():
        return _known(name, folder.parent, extend=[])
    if any(path != paths.lock for path in folder.iterdir()):
        raise ConfigError(f"{where}: is no run of vistune; remove it, or give another --name")
    return ChosenRun(config, paths, resumed=False)  # killed before the run had a configuration
