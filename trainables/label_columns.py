"""How do the label columns of a table become classes? One class a row, several in one cell, or a column for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trainables.config import DataConfig
from trainables.problems import Problem, some_of
from trainables.sources import TRAIN

Cells = Mapping[str, Sequence[object]]
Where = Callable[[int], str]  # how messages name a row
_ZERO_ONE = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "False": 0, "True": 1, "false": 0, "true": 1}


@dataclass(frozen=True)
class Labels:
    """Labels of a table.

    Attributes:
        values: (N,) int64; for multi-label data (N, C) uint8 of 0 and 1.
        class_names: one a label.
    """

    values: np.ndarray
    class_names: tuple[str, ...]


def label_columns_of(config: DataConfig) -> tuple[str, ...]:
    """The columns that hold labels."""
    return config.label_columns or (config.label_column or "label",)


def read_labels(cells: Cells, config: DataConfig, *, where: Where) -> tuple[Labels, list[Problem]]:
    """Labels of every row, and what is wrong with them; the labels are of use only where nothing is.

    Classes are in alphabetical order, in numerical order where all are whole numbers, or that of `label_columns`.

    Args:
        cells: the columns that `label_columns_of` names, of equal length; None and blank text are empty cells.
    """
    if config.label_columns is not None:
        return _from_zero_one(cells, config.label_columns, where=where)
    texts = ["" if cell is None else str(cell).strip() for cell in cells[label_columns_of(config)[0]]]
    if config.label_separator is not None:
        return _from_separated(texts, config.label_separator)
    return _from_single(texts, where=where)


def check_classes(labels: Labels, given_split: np.ndarray) -> list[Problem]:
    """What is wrong with the classes as a whole: too few of them, or some that no training image shows.

    Args:
        given_split: (N,) int8, as the data set gives it.
    """
    count = len(labels.class_names)
    if labels.values.ndim == 1 and count < 2:
        return [Problem(name, "the only class; a classifier needs at least two") for name in labels.class_names]
    if count == 0:
        return [Problem("labels", "every row is without a label")]
    outside = given_split != TRAIN
    if outside.all() or not outside.any():
        return []
    shown = _is_shown(labels, ~outside)
    lacking = [name for name, seen in zip(labels.class_names, shown, strict=True) if not seen]
    return [Problem("train", f"lacks classes of the other splits: {some_of(lacking)}")] if lacking else []


def _is_shown(labels: Labels, rows: np.ndarray) -> np.ndarray:
    if labels.values.ndim == 2:
        return np.asarray(labels.values[rows].any(axis=0))
    return np.bincount(labels.values[rows], minlength=len(labels.class_names)) > 0


def _from_single(texts: list[str], *, where: Where) -> tuple[Labels, list[Problem]]:
    problems = [Problem(where(row), "label is empty") for row, text in enumerate(texts) if not text]
    names = _in_order(set(texts) - {""})
    index = {name: number for number, name in enumerate(names)}
    return Labels(np.array([index.get(text, -1) for text in texts], np.int64), names), problems


def _from_separated(texts: list[str], separator: str) -> tuple[Labels, list[Problem]]:
    rows = [{part.strip() for part in text.split(separator)} - {""} for text in texts]
    names = _in_order(set().union(*rows))
    index = {name: number for number, name in enumerate(names)}
    values = np.zeros((len(rows), len(names)), np.uint8)
    for row, parts in enumerate(rows):
        values[row, [index[part] for part in parts]] = 1
    return Labels(values, names), []


def _from_zero_one(cells: Cells, columns: Sequence[str], *, where: Where) -> tuple[Labels, list[Problem]]:
    problems = []
    values = np.zeros((len(cells[columns[0]]), len(columns)), np.uint8)
    for number, column in enumerate(columns):
        for row, cell in enumerate(cells[column]):
            value = _ZERO_ONE.get(str(cell).strip())
            if value is None:
                found = "nothing" if cell is None or not str(cell).strip() else repr(cell)
                problems.append((row, Problem(where(row), f"{column} must be 0 or 1, found {found}")))
            else:
                values[row, number] = value
    problems.sort(key=lambda each: each[0])
    return Labels(values, tuple(columns)), [problem for _, problem in problems]


def _in_order(names: set[str]) -> tuple[str, ...]:
    if all(name.isascii() and name.isdigit() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))
