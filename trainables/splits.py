"""Which images train, validate and test? Divided class by class, fixed by a seed, and written down."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainables.atomic_files import write_beside
from trainables.config import SplitConfig
from trainables.errors import DataError
from trainables.sources import FREE, TEST, TRAIN, VAL
from trainables.stratify import stratify_labels

if TYPE_CHECKING:
    from trainables.data import ImageData

_SPLIT_NAMES = ("train", "val", "test")


@dataclass(frozen=True)
class Splits:
    """Row numbers of each split, int64, sorted; disjoint, and every row is in one of them."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def make_splits(data: ImageData, split: SplitConfig) -> Splits:
    """Divides the images into train, validation and test, class by class, fixed by the seed.

    Given splits stay as they are. Where validation or test is not given, its fraction of the remaining images of
    each class is drawn: the fraction of the class's images rounded half up, at least 1; where that would leave no
    training image, the larger of the two gives one up. Multi-label images are drawn by iterative stratification,
    which comes as near to the fractions of each label as the images allow.

    Raises:
        DataError: if a class has too few images to be in every split.

    Source: Sechidis et al., On the Stratification of Multi-Label Data, 2011, doi:10.1007/978-3-642-23808-6_10.
    """
    carved = [each for each in (VAL, TEST) if not (data.given_split == each).any()]
    fractions = [{VAL: split.val, TEST: split.test}[each] for each in carved]
    free = np.flatnonzero(data.given_split == FREE)
    assigned = np.where(data.given_split == FREE, TRAIN, data.given_split)
    _check_enough_images(data, free, num_parts=len(carved) + 1 if len(free) else 0)
    rng = np.random.default_rng(split.seed)
    if data.kind == "multilabel":
        parts = np.array([TRAIN, *carved])
        assigned[free] = parts[stratify_labels(data.labels[free], fractions=fractions, rng=rng)]
    else:
        _draw_by_class(data.labels, free, assigned, dict(zip(carved, fractions, strict=True)), rng)
    return Splits(*(np.flatnonzero(assigned == each).astype(np.int64) for each in (TRAIN, VAL, TEST)))


def _draw_by_class(
    labels: np.ndarray, free: np.ndarray, assigned: np.ndarray, fractions: dict[int, float], rng: np.random.Generator
) -> None:
    """Assigns drawn rows of each class to the splits of `fractions`, in place."""
    by_class = free[np.argsort(labels[free], kind="stable")]
    ends = np.cumsum(np.bincount(labels[free]))
    for rows in np.split(by_class, ends[:-1]):
        drawn = rng.permutation(rows)
        for each, count in zip(fractions, _share(len(drawn), list(fractions.values())), strict=True):
            assigned[drawn[:count]] = each
            drawn = drawn[count:]


def _share(count: int, fractions: list[float]) -> list[int]:
    """How many of `count` images each fraction gets; see `make_splits` for the rounding."""
    # Fractions of the written decimals: 0.15 of 10 is 1.5 and rounds to 2, which floats would miss at times.
    shares = [max(1, int(Fraction(str(fraction)) * count + Fraction(1, 2))) for fraction in fractions]
    while shares and sum(shares) >= count and max(shares) > 1:
        shares[shares.index(max(shares))] -= 1
    return shares


def _check_enough_images(data: ImageData, free: np.ndarray, *, num_parts: int) -> None:
    labels = data.labels[free]
    counts = labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=len(data.class_names))
    small = [f"{name} ({count})" for name, count in zip(data.class_names, counts, strict=True) if count < num_parts]
    if small:
        shown = ", ".join(small[:20]) + (f" and {len(small) - 20} more" if len(small) > 20 else "")
        raise DataError(
            f"splits: each class needs at least {num_parts} images to be in each of {num_parts} splits, "
            f"too few in: {shown}; add images or remove the classes"
        )


def write_splits(path: Path, splits: Splits, data: ImageData) -> None:
    """Writes a CSV with the columns row, split, label and name (the image's, where it has one).

    The label is the class's name; of multi-label images all names with | between them.
    """
    write_beside(path, lambda temporary: _write_rows(temporary, splits, data))


def _write_rows(path: Path, splits: Splits, data: ImageData) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["row", "split", "label", "name"])
        for split in _SPLIT_NAMES:
            for row in getattr(splits, split).tolist():
                writer.writerow([row, split, _label_text(data, row), data.names[row] if data.names else ""])


def _label_text(data: ImageData, row: int) -> str:
    labels = np.flatnonzero(data.labels[row]) if data.labels.ndim == 2 else data.labels[row : row + 1]
    return "|".join(data.class_names[label] for label in labels)


def read_splits(path: Path) -> Splits:
    """The splits that `write_splits` wrote.

    Raises:
        DataError: if the file is missing or is not such a CSV.
    """
    rows: dict[str, list[int]] = {split: [] for split in _SPLIT_NAMES}
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            for line in csv.DictReader(file):
                rows[line["split"]].append(int(line["row"]))
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path}: not a splits file ({error!r}); start the search anew to write it") from error
    return Splits(*(np.array(sorted(rows[split]), np.int64) for split in _SPLIT_NAMES))
