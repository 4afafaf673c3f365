"""Which images are iNaturalist's? VERSION/CATEGORY/*.jpg, where a class is a species or anything above it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from trainables.class_folders import ClassFolder, source_of_folders, subfolders
from trainables.config import DataConfig
from trainables.errors import DataError
from trainables.sources import TEST, TRAIN, Source
from trainables.torchvision_source import download, torchvision_root

_RANKS = ("kingdom", "phylum", "class", "order", "family", "genus")  # in the order of a folder's name, 2021
_DEFAULT_VERSION = "2021_train"


def inaturalist_source(config: DataConfig) -> Source:
    """iNaturalist as torchvision unpacks it; beside 2021_train and 2021_train_mini, 2021_valid is the test.

    A folder of 2021 is called NUMBER_KINGDOM_PHYLUM_CLASS_ORDER_FAMILY_GENUS_SPECIES, and `target` names the part
    that is the class, `full` being the species. Before 2021 it is SUPER/CATEGORY, and `target` full or super. A part
    of the categories will do.

    Raises:
        DataError: if the version is missing or not laid out so, or the target is not one of it.
    """
    root = torchvision_root(config)
    version = config.version or _DEFAULT_VERSION
    target = config.target or "full"
    known = ("full", *_RANKS) if version.startswith("2021") else ("full", "super")
    if target not in known:
        raise DataError(f"task.data.target: unknown for inaturalist {version}, found {target}; use {', '.join(known)}")
    _obtain(config, root, version)
    splits = {TRAIN: root / version}
    if version in ("2021_train", "2021_train_mini") and (root / "2021_valid").is_dir():
        splits[TEST] = root / "2021_valid"
    return source_of_folders(
        root,
        splits,
        classes_of=lambda folder, split: _classes(folder, split, target=target, ranked=version.startswith("2021")),
        remedy="expected the folders that torchvision.datasets.INaturalist unpacks, with images in each",
        names_of=_readable if target == "full" and version.startswith("2021") else tuple,
    )


def _obtain(config: DataConfig, root: Path, version: str) -> None:
    from torchvision.datasets import INaturalist
    from torchvision.datasets.inaturalist import DATASET_URLS

    if version not in DATASET_URLS:
        known = ", ".join(DATASET_URLS)
        raise DataError(f"task.data.version: unknown for inaturalist, found {version}; use {known}")
    if config.download and not (root / version).is_dir():
        download(f"inaturalist_{version}", root, lambda: INaturalist(root, version, download=True))
    if not (root / version).is_dir():
        present = ", ".join(each for each in DATASET_URLS if (root / each).is_dir()) or "no version"
        raise DataError(
            f"{root}: {version} of inaturalist is missing, found {present}; "
            "correct task.data.version, set task.data.download: true, or unpack it there"
        )


def _classes(folder: Path, split: int, *, target: str, ranked: bool) -> list[ClassFolder]:
    if not ranked:
        pairs = [(above, below) for above in subfolders(folder) for below in subfolders(above)]
        return [
            ClassFolder(below, split, above.name if target == "super" else f"{above.name}/{below.name}")
            for above, below in pairs
        ]
    folders = subfolders(folder)
    odd = [path.name for path in folders if len(path.name.split("_")) != 8]
    if odd:
        raise DataError(
            f"{folder}: {len(odd)} folder(s) are not called NUMBER_KINGDOM_PHYLUM_CLASS_ORDER_FAMILY_GENUS_SPECIES, "
            f"for instance {odd[0]}; rename or remove them"
        )
    if target == "full":
        return [ClassFolder(path, split, path.name) for path in folders]
    place = 1 + _RANKS.index(target)
    return [ClassFolder(path, split, path.name.split("_")[place]) for path in folders]


def _readable(labels: list[str]) -> tuple[str, ...]:
    """Genus and species; the whole label where two categories share both."""
    names = [" ".join(label.split("_")[6:]) for label in labels]
    counts = Counter(names)
    return tuple(name if counts[name] == 1 else label for name, label in zip(names, labels, strict=True))
