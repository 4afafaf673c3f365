"""Which runs are there? `python -m search.list`: each with its state, best score, size and date."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from search.mirrored_run import fetch_summary, is_driven, is_held_here
from search.results import RunPaths
from search.storage import add_storage_path, storage_root, store_reached
from trainables.errors import ConfigError, VistuneError
from trainables.mirrors import mirror_of, shown
from trainables.object_store import names_in, total_size

# Columns of a terminal that is none, such as a pipe: enough that nothing is cut.
_WIDE = 240
_STYLES = {"finished": "green", "running": "cyan", "failed": "red", "damaged": "red", "interrupted": "yellow"}


@dataclass(frozen=True)
class RunLine:
    """A run, on one line.

    Attributes:
        state: finished, interrupted, failed, running (another process works on it), unfinished, or damaged.
        trials: how many were run.
        best: the best validation score; None without one.
        test: what the winner reached on the test split in the run's metric, if that was evaluated there.
        num_bytes: on disk.
        problem: for a damaged run, what is wrong.
    """

    name: str
    state: str
    started: datetime
    num_bytes: int
    trials: int = 0
    best: float | None = None
    test: float | None = None
    metric: str = ""
    problem: str = ""


def list_runs(storage_path: Path) -> list[RunLine]:
    """The runs in a folder, newest first; folders that are no runs are passed over.

    Raises:
        ConfigError: if there is no such folder.
    """
    if mirror_of(storage_path) is not None:
        with store_reached(storage_path):
            for name in names_in(storage_path):
                fetch_summary(RunPaths(storage_path / name))
            storage_path.mkdir(parents=True, exist_ok=True)  # the copy of an empty folder
    if not storage_path.is_dir():
        raise ConfigError(
            f"{shown(storage_path)}: no such folder, so no runs; give the folder of runs with --storage-path"
        )
    runs = (RunPaths(path) for path in storage_path.iterdir() if path.is_dir())
    lines = [_line(paths) for paths in runs if not os.access(paths.root, os.X_OK) or _is_run(paths)]
    return sorted(lines, key=lambda line: (line.started, line.name), reverse=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m search.list", description="The runs there are, newest first.")
    add_storage_path(parser)
    options = parser.parse_args(arguments)
    try:
        storage = storage_root(options.storage_path)
        lines = list_runs(storage)
    except VistuneError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
    if not lines:
        console.print(f"no runs in {shown(storage)}", markup=False)
        return 0
    console.print(_table(lines))
    for line in lines:
        if line.problem:
            console.print(f"{line.name}: {line.problem}", markup=False, style="red")
    return 0


def _is_run(paths: RunPaths) -> bool:
    return any(path.is_file() for path in (paths.config, paths.summary, paths.study))


def _line(paths: RunPaths) -> RunLine:
    """Reads a run's small files; all of its study only where no session has come to an end, as that takes a second."""
    started = datetime.fromtimestamp(paths.root.stat().st_mtime, tz=UTC)
    mirrored = mirror_of(paths.root) is not None
    num_bytes = 0
    try:
        num_bytes = total_size(paths.root) if mirrored else sum(_sizes(paths.root))
        environment = _object(paths.environment) if paths.environment.is_file() else {}
        started = datetime.fromisoformat(environment["started"]) if "started" in environment else started
        metric = _metric(paths.config)
        running = (mirrored and is_driven(paths)) or is_held_here(paths)
        if paths.summary.is_file() and not running:
            return _ended(paths, _object(paths.summary), metric=metric, started=started, num_bytes=num_bytes)
        return _under_way(paths, running=running, metric=metric, started=started, num_bytes=num_bytes)
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
        VistuneError,
        yaml.YAMLError,
    ) as error:
        told = str(error).strip().splitlines() or [type(error).__name__]
        problem = told[0] if isinstance(error, VistuneError) else f"{type(error).__name__}: {told[0]}"
        return RunLine(paths.name, "damaged", started=started, num_bytes=num_bytes, problem=problem)


def _ended(paths: RunPaths, summary: dict[str, Any], *, metric: str, started: datetime, num_bytes: int) -> RunLine:
    if summary["state"] != "finished" and mirror_of(paths.root) is None:
        from search.report_source import check_lines

        check_lines(paths.study)  # it is to be resumed
    best, test = summary["best"], summary.get("test")
    return RunLine(
        name=paths.name,
        state=str(summary["state"]),
        started=started,
        num_bytes=num_bytes,
        trials=sum(summary["trials"].values()),
        best=None if best is None else float(best[metric]),
        test=None if not test else test.get(metric.removeprefix("val_")),
        metric=metric,
    )


def _under_way(paths: RunPaths, *, running: bool, metric: str, started: datetime, num_bytes: int) -> RunLine:
    from search.report_source import read_source

    source = read_source(paths)
    return RunLine(
        name=paths.name,
        state="running" if running else "unfinished",
        started=started,
        num_bytes=num_bytes,
        trials=len(source.records),
        best=None if source.winner is None else source.winner.score,
        metric=metric,
    )


def _metric(path: Path) -> str:
    """The metric of a run, from its resolved configuration, which has every default written out."""
    if not path.is_file():
        raise ConfigError(f"{path.name}: is missing; restore it from a copy, or remove the run")
    # Text is all that is asked for. PyYAML's other loaders are of YAML 1.1, and stumble over what is text in 1.2.
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    config = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    try:
        metric = config["task"]["metric"]
        return str(metric[0] if isinstance(metric, list) else metric)
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{path.name}: names no task.metric; restore it from a copy, or remove the run") from error


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path.name}: is no JSON ({error}); restore it from a copy, or remove the run") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path.name}: must hold an object, found {type(value).__name__}; restore it from a copy")
    return value


def _sizes(folder: Path) -> Iterator[int]:
    """Bytes of every file in a folder and below; what vanishes meanwhile, or may not be read, counts nothing."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _sizes(Path(entry.path))
                else:
                    yield entry.stat(follow_symlinks=False).st_size
    except (FileNotFoundError, PermissionError):
        return


def _table(lines: Sequence[RunLine]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("run", overflow="fold")
    table.add_column("state")
    for name in ("trials", "best", "test"):
        table.add_column(name, justify="right")
    table.add_column("metric")
    table.add_column("size", justify="right")
    table.add_column("started")
    for line in lines:
        table.add_row(
            Text(line.name),
            Text(line.state, style=_STYLES.get(line.state, "")),
            "" if line.problem else str(line.trials),
            _score(line.best),
            _score(line.test),
            line.metric,
            _size(line.num_bytes),
            f"{line.started.astimezone():%Y-%m-%d %H:%M}",
        )
    return table


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _size(num_bytes: int) -> str:
    for unit, limit in (("KB", 10**6), ("MB", 10**9)):
        if num_bytes < limit:
            return f"{num_bytes / limit * 1000:.1f} {unit}"
    return f"{num_bytes / 10**9:.1f} GB"


if __name__ == "__main__":
    sys.exit(main())
