"""How do several runs compare? `python -m search.compare RUN RUN...`, in the terminal and as a page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from search.storage import add_storage_path, storage_root
from trainables.errors import ConfigError, VistuneError

if TYPE_CHECKING:
    from search.report_source import ReportSource

_WIDE = 240  # columns of a terminal that is none, such as a pipe


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    options = _parse(arguments)
    try:
        runs = load_runs(options.runs, storage_path=storage_root(options.storage_path))
        console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
        describe_comparison(console, runs)
        if options.html is not None:
            from search.html_compare import write_comparison

            console.print(f"page  {write_comparison(options.html, runs)}", markup=False, soft_wrap=True)
    except VistuneError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def load_runs(names: Sequence[str], *, storage_path: Path) -> list[ReportSource]:
    """The named runs, in that order.

    Args:
        names: of runs under the storage path, or folders.

    Raises:
        ConfigError: if one does not exist, cannot be read, or is named twice.
    """
    from search.report_source import read_source
    from search.storage import find_run

    found = [find_run(name, storage_path=storage_path) for name in names]
    for index, paths in enumerate(found):
        if any(paths.root.resolve() == earlier.root.resolve() for earlier in found[:index]):
            raise ConfigError(f"{names[index]}: named twice; a run cannot be compared with itself, so remove one")
    return [read_source(paths) for paths in found]


def describe_comparison(console: Console, runs: Sequence[ReportSource]) -> None:
    """What may be compared, how the runs ended, in which settings they differ, and how fast they got better."""
    from search.report_comparison import (
        RESULT_COLUMNS,
        best_at,
        comparable,
        differences,
        important_parameters,
        obstacles,
        results,
        verdicts,
    )

    for text in obstacles(runs):
        console.print(text, markup=False, style="bold yellow")
    console.print(_table("results", RESULT_COLUMNS, results(runs)))
    for text in verdicts(runs):
        console.print(text, markup=False)
    names = [run.paths.name for run in runs]
    differing = differences(runs)
    if differing:
        rows = [[key, *values] for key, values in differing]
        console.print(_table("settings that differ", ["setting", *names], rows))
    else:
        console.print("All settings are the same.")
    marks, scores = best_at(runs)
    if comparable(runs) and marks:
        header = ["run", *(f"{mark:,} epochs" for mark in marks)]
        rows = [[name, *row] for name, row in zip(names, scores, strict=True)]
        console.print(_table(f"best {runs[0].metric} after", header, rows))
    rows = [[run.paths.name, important_parameters(run)] for run in runs]
    console.print(_table("parameters that mattered", ["run", "share of the importance"], rows))


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for name in header:
        table.add_column(Text(name), overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m search.compare", description="Compare runs: settings that differ, scores, progress."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="name or folder of a run; two or more")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the comparison as a page, too")
    add_storage_path(parser)
    options = parser.parse_args(arguments)
    if len(options.runs) < 2:
        parser.error("give two runs or more; python -m search.list shows which there are")
    return options


if __name__ == "__main__":
    sys.exit(main())
