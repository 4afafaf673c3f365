"""Which images are ImageNet's? train/WNID/*.JPEG, and val/WNID/*.JPEG as the test."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from trainables.class_folders import existing_root, is_image, source_of_folders
from trainables.config import DataConfig
from trainables.errors import DataError
from trainables.folder_source import class_folders
from trainables.sources import TEST, TRAIN, Source

_CLASS_NAMES = "LOC_synset_mapping.txt"


def imagenet_source(config: DataConfig) -> Source:
    """ImageNet (or a part of it) below `root`; its published validation images are the test, as is the custom.

    Classes are in the order of their WordNet numbers. They have the first name that `LOC_synset_mapping.txt` of the
    root gives each, followed by the number where two share one (crane), and are called by number without that file.

    Raises:
        DataError: if train/ is missing, val/ is not sorted into classes, or the two differ in their classes.
    """
    assert config.root is not None  # DataConfig refuses it
    root = existing_root(config.root)
    train, val = root / "train", root / "val"
    if not train.is_dir():
        raise DataError(
            f"{root}: train is missing; expected train/WNID/*.JPEG and val/WNID/*.JPEG below task.data.root"
        )
    if val.is_dir():
        _check_sorted(val)
    known = _read_class_names(root / _CLASS_NAMES)
    return source_of_folders(
        root,
        {TRAIN: train, TEST: val} if val.is_dir() else {TRAIN: train},
        classes_of=class_folders,
        remedy="expected train/WNID/*.JPEG and val/WNID/*.JPEG with the same classes; complete or delete the folders",
        names_of=lambda numbers: _distinct_names(numbers, known),
    )


def _check_sorted(val: Path) -> None:
    loose = [path.name for path in val.iterdir() if path.is_file() and is_image(path.name)]
    if loose:
        raise DataError(
            f"{val}: {len(loose)} images lie loose, for instance {min(loose)}, expected a folder for each class; "
            "move each into val/WNID/: LOC_val_solution.csv of the Kaggle edition names its WNID, and "
            "torchvision.datasets.imagenet.parse_val_archive does the same with the original archive"
        )


def _read_class_names(path: Path) -> dict[str, str]:
    """WordNet number to the first name; the lines are `n01440764 tench, Tinca tinca`."""
    if not path.is_file():
        return {}
    lines = (line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines())
    return {parts[0]: parts[1].split(",")[0].strip() for parts in lines if len(parts) == 2}


def _distinct_names(numbers: list[str], known: dict[str, str]) -> tuple[str, ...]:
    names = [known.get(number, number) for number in numbers]
    counts = Counter(names)
    return tuple(
        name if counts[name] == 1 else f"{name} ({number})" for name, number in zip(names, numbers, strict=True)
    )
