"""Which images does a table list? A CSV file with a header: paths, labels, and splits where it has them."""

from __future__ import annotations

import csv
import hashlib
import os
import stat
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np

from trainables.config import DataConfig
from trainables.errors import DataError
from trainables.label_columns import Labels, check_classes, label_columns_of, read_labels
from trainables.problems import Problem, raise_problems
from trainables.sources import FREE, SPLIT_NAMES, TRAIN, ImageFiles, Listing, Source, identity_of, with_free

_SPLIT_COLUMN = "split"


@dataclass(frozen=True)
class _Table:
    """The columns in use, by name, and the line of the file that each row ends on."""

    columns: dict[str, list[str]]
    lines: list[int]

    def where(self, row: int) -> str:
        return f"line {self.lines[row]}"


def csv_source(config: DataConfig) -> Source:
    """The images of a CSV table.

    Paths are relative to `root`, or to the table's own folder; absolute paths and others outside are fine. The split
    column, where there is one, says train, val or test of every row; with train and one of the two, the other is
    carved from train.

    Raises:
        DataError: if the table is missing or lacks a column, or listing all rows that are wrong, with their lines.
    """
    assert config.csv is not None  # DataConfig refuses it
    path = Path(config.csv).expanduser().absolute()
    base = path.parent if config.root is None else Path(config.root).expanduser().absolute()
    image_column = config.image_column or "path"
    table, content_hash, problems = _read_table(path, [image_column, *label_columns_of(config)])
    names = [name.strip() for name in table.columns[image_column]]
    paths = [os.path.normpath(os.path.join(base, name)) for name in names]  # noqa: PTH118
    stamps, missing = _stamps(paths, names, table)
    labels, bad_labels = read_labels(table.columns, config, where=table.where)
    given, bad_splits = _read_splits(table)
    problems += missing + bad_labels + bad_splits
    if not problems:
        problems = check_classes(labels, given)
    raise_problems(str(path), sorted(problems, key=_line), remedy="correct these lines and start again")
    identity = identity_of([path, content_hash, image_column, config.label_column, config.label_columns, *stamps])
    identity = identity_of([identity, config.label_separator, *paths])
    return Source(str(path), identity, tuple(names), lambda: _listing(paths, names, labels, given))


def _listing(paths: list[str], names: list[str], labels: Labels, given: np.ndarray) -> Listing:
    return Listing(ImageFiles(paths, names), labels.values, labels.class_names, with_free(given))


def _read_table(path: Path, needed: list[str]) -> tuple[_Table, str, list[Problem]]:
    """The needed columns and that of splits, a hash of the file's bytes, and rows that do not fit the header."""
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")  # spreadsheets write a byte-order mark
    except OSError as error:
        raise DataError(f"{path}: the table cannot be read ({error.strerror}); correct task.data.csv") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: the table is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    reader = csv.reader(StringIO(text, newline=""))
    header = [name.strip() for name in next(reader, [])]
    _check_header(path, header, needed)
    used = [*needed, *([_SPLIT_COLUMN] if _SPLIT_COLUMN in header else [])]
    table = _Table({name: [] for name in used}, [])
    places = {name: header.index(name) for name in used}
    problems = []
    try:
        for cells in reader:
            if not cells:
                continue  # a blank line
            if len(cells) != len(header):
                what = f"has {len(cells)} cells, the header has {len(header)}"
                problems.append(Problem(f"line {reader.line_num}", what))
                continue
            table.lines.append(reader.line_num)
            for name, place in places.items():
                table.columns[name].append(cells[place])
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num} is not CSV ({error}); correct it") from error
    if not table.lines and not problems:
        raise DataError(f"{path}: the table has no rows; list one image a line below the header")
    return table, hashlib.blake2b(content, digest_size=16).hexdigest(), problems


def _check_header(path: Path, header: list[str], needed: list[str]) -> None:
    missing = [name for name in dict.fromkeys(needed) if name not in header]
    other = next((each for each in (";", "\t") if len(header) == 1 and each in header[0]), None)
    if missing and other is not None:
        found = "semicolons" if other == ";" else "tabs"
        raise DataError(f"{path}: the columns are separated by {found}, expected commas; save the table so")
    if missing:
        raise DataError(
            f"{path}: no column {', '.join(missing)} in the header, found {', '.join(header) or 'nothing'}; "
            "name the columns in task.data: image_column, label_column or label_columns"
        )
    doubled = sorted({name for name in [*needed, _SPLIT_COLUMN] if header.count(name) > 1})
    if doubled:
        raise DataError(f"{path}: the header has {', '.join(doubled)} more than once; rename one of them")


def _stamps(paths: list[str], names: list[str], table: _Table) -> tuple[list[tuple[int, int]], list[Problem]]:
    """Size in bytes and time of change in ns of each file; and files that are missing or listed again."""
    stamps: list[tuple[int, int]] = []
    problems: list[Problem] = []
    first: dict[str, int] = {}
    for row, (path, name) in enumerate(zip(paths, names, strict=True)):
        earlier = first.setdefault(path, row)
        if not name:
            problems.append(Problem(table.where(row), "path is empty"))
        elif earlier != row:
            problems.append(Problem(table.where(row), f"{name} was listed before, on {table.where(earlier)}"))
        elif (stamp := _stamp(path)) is None:
            problems.append(Problem(table.where(row), f"no file {path}"))
        else:
            stamps.append(stamp)
    return stamps, problems


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def _read_splits(table: _Table) -> tuple[np.ndarray, list[Problem]]:
    given = np.full(len(table.lines), FREE, np.int8)
    if _SPLIT_COLUMN not in table.columns:
        return given, []
    problems = []
    for row, cell in enumerate(table.columns[_SPLIT_COLUMN]):
        split = SPLIT_NAMES.get(cell.strip().lower())
        if split is None:
            problems.append(Problem(table.where(row), f"split must be train, val or test, found {cell!r}"))
        else:
            given[row] = split
    if not problems and not (given == TRAIN).any():
        problems.append(Problem(_SPLIT_COLUMN, "no row says train"))
    return given, problems


def _line(problem: Problem) -> int:
    words = problem.where.split()
    return int(words[1]) if len(words) == 2 and words[0] == "line" else 0
