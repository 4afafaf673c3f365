"""Which images are in a Hugging Face data set? One of the hub, saved on disk, or a folder that `datasets` reads."""

from __future__ import annotations

import bisect
import os
import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainables.config import DataConfig
from trainables.errors import DataError
from trainables.label_columns import Labels, check_classes, label_columns_of, read_labels
from trainables.problems import Problem, raise_problems
from trainables.sources import FREE, SPLIT_NAMES, TRAIN, Listing, Source, identity_of, with_free

if TYPE_CHECKING:
    from PIL.Image import Image

Parts = Mapping[str, Any]  # split name to datasets.Dataset

_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)  # NAME or OWNER/NAME


class ArrowImages:
    """The images of an Arrow column, read row by row; the table is mapped, not loaded.

    Args:
        parts: datasets.Dataset of each split.
        names: of every row.
    """

    def __init__(self, parts: Sequence[Any], *, column: str, names: Sequence[str]) -> None:
        self._parts = [part.select_columns(column).with_format("arrow") for part in parts]
        self._ends = np.cumsum([len(part) for part in parts]).tolist()
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def open(self, row: int) -> Image:
        from PIL import Image

        number = bisect.bisect_right(self._ends, row)
        start = self._ends[number - 1] if number else 0
        cell = self._parts[number][row - start].column(0)[0].as_py()
        if cell is None or (cell["bytes"] is None and cell["path"] is None):
            raise ValueError("the row has no image")
        return Image.open(cell["path"] if cell["bytes"] is None else BytesIO(cell["bytes"]))

    def name(self, row: int) -> str:
        return self._names[row]


def huggingface_source(config: DataConfig) -> Source:
    """A data set of the hub, of `Dataset.save_to_disk`, or a folder of images or parquet files.

    The splits train, validation and test are used where they are there; others beside train are left out, and so is
    a split without labels. Labels may be a ClassLabel, whole numbers or text. Classes that no row has are dropped.

    Raises:
        DataError: if `datasets` is not installed, the data set cannot be found, or its columns do not fit.
    """
    assert config.root is not None  # DataConfig refuses it
    parts = _named_splits(_load(config, config.root), where=config.root)
    image_column = config.image_column or "image"
    _check_columns(parts, config, image_column)
    parts = _labelled(parts, config)
    names = tuple(f"{split}[{row}]" for split, part in parts.items() for row in range(len(part)))
    given = np.repeat(np.array([SPLIT_NAMES.get(split, FREE) for split in parts], np.int8), [*map(len, parts.values())])
    labels, problems = _labels(parts, config, names)
    raise_problems(config.root, problems or check_classes(labels, given), remedy="correct the table and start again")
    identity = identity_of(
        [config.root, image_column, *label_columns_of(config), config.label_separator, *_state(parts)]
    )

    def read() -> Listing:
        images = ArrowImages([*parts.values()], column=image_column, names=names)
        return Listing(images, labels.values, labels.class_names, with_free(given))

    return Source(config.root, identity, names, read)


def _load(config: DataConfig, root: str) -> Any:
    """A datasets.Dataset or DatasetDict."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            "task.data.name: huggingface needs the package `datasets`; pip install 'vistune[huggingface]'"
        ) from error
    folder = Path(root).expanduser()
    if not folder.is_dir() and not _HUB_NAME.fullmatch(root):
        raise DataError(
            f"{root}: the folder does not exist, and no data set of the hub is called so; correct task.data.root"
        )
    saved = folder / "dataset_dict.json", folder / "state.json"
    try:
        if any(path.is_file() for path in saved):
            return datasets.load_from_disk(str(folder))
        return datasets.load_dataset(str(folder) if folder.is_dir() else root, name=config.version)
    except Exception as error:  # `datasets` lets errors of many packages through, that of its network client too
        what = str(error).strip().splitlines()
        raise DataError(
            f"{root}: the data set cannot be loaded ({what[0] if what else type(error).__name__}); task.data.root is "
            "the name of a data set of the hub, which needs the network, or the path of a folder; task.data.version "
            "is its configuration"
        ) from error


def _named_splits(loaded: Any, *, where: str) -> Parts:
    """The splits in use, by name; one split of any other name is all that there is."""
    if not isinstance(loaded, dict):
        return {"all": loaded}
    known = {name: part for name, part in loaded.items() if name in SPLIT_NAMES}
    codes = [SPLIT_NAMES[name] for name in known]
    if len(set(codes)) < len(codes):
        raise DataError(f"{where}: two splits mean the same, found {', '.join(known)}; save it with one of them")
    if TRAIN in codes:
        return known
    if len(loaded) == 1:
        return {"all": next(iter(loaded.values()))}
    raise DataError(f"{where}: no split is called train, found {', '.join(loaded)}; save it with such a split")


def _check_columns(parts: Parts, config: DataConfig, image_column: str) -> None:
    import datasets

    for split, part in parts.items():
        where = f"{config.root} ({split})"
        found = ", ".join(f"{name} ({_kind(feature)})" for name, feature in part.features.items())
        missing = [name for name in (image_column, *label_columns_of(config)) if name not in part.features]
        if missing:
            raise DataError(
                f"{where}: no column {', '.join(missing)}, found {found}; "
                "name the columns in task.data: image_column, label_column or label_columns"
            )
        if not isinstance(part.features[image_column], datasets.Image):
            raise DataError(f"{where}: {image_column} does not hold images, found {found}; set task.data.image_column")
        for name in label_columns_of(config):
            feature = part.features[name]
            if not isinstance(feature, datasets.ClassLabel | datasets.Value):
                raise DataError(
                    f"{where}: {name} must hold a class, a number or text, found {_kind(feature)}; for several labels "
                    "an image, give each a column of 0 and 1 and name them in task.data.label_columns"
                )


def _kind(feature: Any) -> str:
    import datasets

    return str(feature.dtype) if isinstance(feature, datasets.Value) else type(feature).__name__


def _labelled(parts: Parts, config: DataConfig) -> Parts:
    """Without the splits that hide their labels, as the test splits of competitions do."""
    if config.multi_label:
        return parts
    (column,) = label_columns_of(config)
    hidden = {split for split, part in parts.items() if all(cell in (None, -1, "") for cell in part[column])}
    return {split: part for split, part in parts.items() if split not in hidden or split in ("train", "all")}


def _labels(parts: Parts, config: DataConfig, names: Sequence[str]) -> tuple[Labels, list[Problem]]:
    columns = label_columns_of(config)
    cells = {column: [cell for part in parts.values() for cell in part[column]] for column in columns}
    features = {split: part.features[columns[0]] for split, part in parts.items()}
    if config.multi_label or not all(hasattr(feature, "names") for feature in features.values()):
        return read_labels(cells, config, where=lambda row: names[row])
    known = [tuple(feature.names) for feature in features.values()]
    if len(set(known)) > 1:
        return Labels(np.zeros(0, np.int64), ()), [
            Problem(columns[0], f"its classes differ between {', '.join(parts)}")
        ]
    return _of_class_label(cells[columns[0]], known[0], names)


def _of_class_label(
    cells: list[Any], class_names: tuple[str, ...], names: Sequence[str]
) -> tuple[Labels, list[Problem]]:
    """Labels in the order of a ClassLabel, which counts from 0 and writes -1 for a label that is not known."""
    problems = [Problem(names[row], "label is empty") for row, cell in enumerate(cells) if cell in (None, -1)]
    values = np.array([-1 if cell is None else cell for cell in cells], np.int64)
    seen = np.unique(values[values >= 0])
    return Labels(np.searchsorted(seen, values), tuple(class_names[number] for number in seen)), problems


def _state(parts: Parts) -> list[Any]:
    """What changes when the tables do: their fingerprints, and size and time of change of their files."""
    stamps = []
    for split, part in parts.items():
        files = [each["filename"] for each in part.cache_files]
        stats = [os.stat(file) for file in files]  # noqa: PTH116
        stamps += [split, part._fingerprint, *((stat.st_size, stat.st_mtime_ns) for stat in stats)]
    return stamps
