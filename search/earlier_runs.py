"""Which earlier runs does a search start from, and are they there? What is wrong with them is told first of all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from search.config import SearchConfig, load_search
from search.config_errors import unknown_key
from search.mirrored_run import fetch_run
from search.results import RunPaths
from search.start_from import EarlierRun
from search.storage import store_reached
from trainables.errors import ConfigError
from trainables.mirrors import local_path, mirror_of, shown
from trainables.nearest import nearest

_SHOWN_RUNS = 8


@dataclass(frozen=True)
class Earlier:
    """An earlier run, found and readable as far as its configuration goes.

    Attributes:
        where: its place in this search, such as start_from.1.
        config: of the earlier run.
    """

    where: str
    asked: EarlierRun
    paths: RunPaths
    config: SearchConfig

    @property
    def name(self) -> str:
        """The run's folder as a person would type it."""
        root, here = self.paths.root, Path.cwd()
        if mirror_of(root) is not None:
            return shown(root)
        return str(root.relative_to(here)) if root.is_relative_to(here) else str(root)


def find_earlier(config: SearchConfig) -> list[Earlier]:
    """The earlier runs of `start_from`.

    Raises:
        ConfigError: with a line for every run that is missing, damaged or named twice, and for every parameter of a
            `map` that such a run does not have.
    """
    found: list[Earlier] = []
    problems: list[str] = []
    for index, asked in config.earlier_runs.items():
        try:
            each = _find(f"start_from.{index}", asked)
        except ConfigError as error:
            problems.append(str(error))
            continue
        problems += _problems(each, found)
        found.append(each)
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def _find(where: str, asked: EarlierRun) -> Earlier:
    paths = RunPaths(local_path(asked.run))
    with store_reached(paths.root):
        fetch_run(paths)
    if not paths.root.is_dir():
        raise ConfigError(f"{where}.run: no such run, found {asked.run}; {_remedy(paths)}")
    for path in (paths.config, paths.study):
        if not path.is_file():
            raise ConfigError(
                f"{where}.run: {asked.run} has no {path.name}, so it is no run, or one without trials; "
                "write the folder of a run, or restore the file from a copy"
            )
    try:
        config = load_search(paths.config)
    except ConfigError as error:
        raise ConfigError(
            f"{where}.run: the configuration of {asked.run} cannot be read ({str(error).splitlines()[0]}); "
            "restore it from a copy, or leave the run out"
        ) from error
    return Earlier(where, asked, paths, config)


def _problems(each: Earlier, others: list[Earlier]) -> Iterator[str]:
    twin = next((other for other in others if other.paths.root.resolve() == each.paths.root.resolve()), None)
    if twin is not None:
        yield f"{each.where}.run: the same run as {twin.where}, found {each.asked.run} twice; keep one of them"
    space = each.config.search_space
    known = [*space.searched, *space.fixed]
    for there in each.asked.map:
        if there not in known:
            text = unknown_key(there, known).replace("unknown key", f"is no parameter of {each.asked.run}", 1)
            yield f"{each.where}.map.{there}: {text}"


def _remedy(paths: RunPaths) -> str:
    """The run that was probably meant, or those that there are beside it."""
    folder = paths.root.parent if paths.root.parent.is_dir() else Path("results").absolute()
    if not (folder / paths.name / "config.yaml").is_file() and not any(folder.glob("*/config.yaml")):
        folder = Path("results").absolute()
    runs = sorted((path.parent for path in folder.glob("*/config.yaml")), key=lambda path: path.stat().st_mtime)
    close = nearest(paths.name, [run.name for run in runs], count=1)
    if close:
        return f"did you mean {_typed(folder / close[0])}?"
    listed = ", ".join(run.name for run in runs[-_SHOWN_RUNS:]) or "none"
    return f"write the folder of a run; runs in {_typed(folder)}: {listed}"


def _typed(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
