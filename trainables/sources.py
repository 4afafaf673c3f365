"""Which images does a data set consist of, and of which class is each? Cheap to ask; nothing is decoded here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from trainables.config import DataConfig
from trainables.decode import Problem, raise_problems
from trainables.errors import DataError

TRAIN, VAL, TEST, FREE = 0, 1, 2, -1

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2", ".avif")
)
_SPLIT_FOLDERS = {"train": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST}
# torchvision's class, and the folder it keeps below `root`.
_TORCHVISION = {
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "cifar100": ("CIFAR100", "cifar-100-python"),
    "mnist": ("MNIST", "MNIST/raw"),
    "fashion_mnist": ("FashionMNIST", "FashionMNIST/raw"),
}


@dataclass(frozen=True)
class Listing:
    """The images of a data set, still encoded, and what is known of each.

    Attributes:
        images: files to decode, or decoded pixels, (N, H, W, C) uint8.
        labels: (N,) int64.
        class_names: one a label.
        given_split: (N,) int8; 0 train, 1 val, 2 test, -1 to be divided by fraction.
    """

    images: tuple[Path, ...] | np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    given_split: np.ndarray


@dataclass(frozen=True)
class Source:
    """A data set as it lies on disk.

    Attributes:
        where: how messages name it.
        identity: text that changes when the data set does; found without reading any image.
        names: relative path of each image of a folder, else None.
        read: lists the images; called only when they are not decoded yet.
    """

    where: Path
    identity: str
    names: tuple[str, ...] | None
    read: Callable[[], Listing]


def find_source(config: DataConfig) -> Source:
    """The configured data set.

    Raises:
        DataError: if it is missing, or not laid out as documented; all that is wrong is said at once.
    """
    if config.name == "digits":
        return Source(Path("digits"), f"scikit-learn {version('scikit-learn')}", None, _read_digits)
    if config.name == "folder":
        assert config.root is not None  # DataConfig refuses it
        return _folder_source(Path(config.root).expanduser().absolute())
    return _torchvision_source(config)


def _read_digits() -> Listing:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int64)
    return Listing(images, labels, tuple(str(name) for name in digits.target_names), _all_free(len(labels)))


def _all_free(count: int) -> np.ndarray:
    return np.full(count, FREE, np.int8)


# --- torchvision's own data sets ---


def _torchvision_source(config: DataConfig) -> Source:
    class_name, folder = _TORCHVISION[config.name]
    root = Path(config.root or "data").expanduser().absolute()
    files = root / folder
    if config.download and not files.is_dir():
        _download(class_name, root)
    if not files.is_dir():
        raise DataError(
            f"{root}: the files of {config.name} are missing, expected {files}; "
            "set task.data.download: true, or put the unpacked files there"
        )
    entries = sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files.iterdir())
    return Source(root, _as_text([str(root), entries]), None, lambda: _read_torchvision(config, class_name, root))


def _download(class_name: str, root: Path) -> None:
    import torchvision.datasets
    from filelock import FileLock

    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{class_name}.lock"):  # several trials of a node may want it at once
        try:
            vars(torchvision.datasets)[class_name](root, train=True, download=True)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{root}: {class_name} could not be downloaded ({error}); "
                "check the network and the free space, or put the unpacked files there yourself"
            ) from error


def _read_torchvision(config: DataConfig, class_name: str, root: Path) -> Listing:
    import torchvision.datasets

    try:
        parts = [vars(torchvision.datasets)[class_name](root, train=train, download=False) for train in (True, False)]
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise DataError(
            f"{root}: the files of {config.name} are incomplete or damaged ({str(error).split('.')[0]}); "
            "delete them and set task.data.download: true, or put intact files there"
        ) from error
    images = np.concatenate([np.asarray(part.data) for part in parts])
    if images.ndim == 3:
        images = images[..., None]
    labels = np.concatenate([np.asarray(part.targets, np.int64) for part in parts])
    given = np.repeat(np.array([FREE, TEST], np.int8), [len(part) for part in parts])
    return Listing(images, labels, tuple(parts[0].classes), given)


# --- class folders ---


@dataclass(frozen=True)
class _Found:
    """One image file of a folder; `stamp` is its size in bytes and its time of change in ns."""

    path: str
    split: int
    label: str
    stamp: tuple[int, int]


def _folder_source(root: Path) -> Source:
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise DataError(f"{root}: the folder of images {what}; correct task.data.root")
    splits = _split_folders(root)
    found: list[_Found] = []
    problems: list[Problem] = []
    classes: dict[int, set[str]] = {}
    for split, folder in sorted(splits.items()):
        folders = _subfolders(folder)
        classes[split] = {each.name for each in folders}
        if not folders:
            problems.append(Problem(_name(folder, root), "has no class folders"))
        for each in folders:
            images, others = _images_below(each, split=split)
            found += images
            if not images:
                extra = f", only {others} file(s) of other kinds" if others else ""
                problems.append(Problem(_name(each, root), f"class folder without images{extra}"))
    class_names = sorted(set().union(*classes.values()))
    problems += _class_differences(splits, classes, root)
    if len(class_names) == 1:
        problems.append(Problem(class_names[0], "the only class; a classifier needs at least two"))
    raise_problems(
        str(root),
        problems,
        remedy="expected CLASS/*.jpg, or train/CLASS/*.jpg with val/ and test/ alike; add images or delete the folders",
    )
    start = len(os.path.join(root, ""))  # noqa: PTH118
    names = tuple(image.path[start:].replace(os.sep, "/") for image in found)
    identity = _as_text([str(root), [[name, *image.stamp] for name, image in zip(names, found, strict=True)]])
    return Source(root, identity, names, lambda: _folder_listing(found, class_names, splits))


def _folder_listing(found: list[_Found], class_names: list[str], splits: dict[int, Path]) -> Listing:
    index = {name: number for number, name in enumerate(class_names)}
    labels = np.array([index[image.label] for image in found], np.int64)
    given = np.array([image.split for image in found], np.int8)
    if not {VAL, TEST} <= splits.keys():
        given[given == TRAIN] = FREE  # a split is missing and has to be carved from these
    return Listing(tuple(Path(image.path) for image in found), labels, tuple(class_names), given)


def _split_folders(root: Path) -> dict[int, Path]:
    """Split number to the folder that holds its class folders; {FREE: root} where class folders lie in the root.

    `train` counts as a split where it has class folders in it; where it holds images itself, beside other class
    folders, it is a class like them.
    """
    folders = _subfolders(root)
    named = [folder for folder in folders if folder.name in _SPLIT_FOLDERS]
    others = [folder.name for folder in folders if folder.name not in _SPLIT_FOLDERS]
    train = root / "train"
    if not folders:
        raise DataError(f"{root}: no class folders found; put the images into {root}/CLASS/, one folder a class")
    train_is_split = train in named and bool(_subfolders(train))
    if train_is_split:
        with_images = [name for name in others if _images_below(root / name, split=FREE)[0]]
        if with_images:
            raise DataError(
                f"{root}: split folders ({', '.join(f.name for f in named)}) lie beside other folders of images "
                f"({', '.join(with_images[:5])}); move these into train/, or away"
            )
        splits: dict[int, Path] = {}
        for folder in named:
            split = _SPLIT_FOLDERS[folder.name]
            if split in splits:
                raise DataError(f"{root}: both {splits[split].name} and {folder.name} found; keep one of them")
            splits[split] = folder
        return splits
    if named and not others:
        what = "train has no class folders" if train in named else "train is missing"
        found = ", ".join(folder.name for folder in named)
        raise DataError(f"{root}: {what}, found {found}; put the training images into {root}/train/CLASS/")
    return {FREE: root}


def _class_differences(splits: dict[int, Path], classes: dict[int, set[str]], root: Path) -> Iterator[Problem]:
    if TRAIN not in splits:
        return
    for split in sorted(classes.keys() - {TRAIN}):
        if not classes[split]:
            continue  # said already
        missing, extra = classes[TRAIN] - classes[split], classes[split] - classes[TRAIN]
        if missing:
            yield Problem(_name(splits[split], root), f"lacks classes of train: {_some(missing)}")
        if extra:
            yield Problem(_name(splits[split], root), f"has classes that train lacks: {_some(extra)}")


def _some(names: set[str]) -> str:
    shown = sorted(names)[:5]
    return ", ".join(shown) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images_below(folder: Path, *, split: int) -> tuple[list[_Found], int]:
    """The images anywhere below a class folder, sorted, and how many other visible files lie there."""
    images: list[_Found] = []
    others = 0
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.startswith("."):
                continue
            if os.path.splitext(name)[1].lower() not in IMAGE_SUFFIXES:  # noqa: PTH122
                others += 1
                continue
            path = f"{parent}{os.sep}{name}"  # there may be a million: no Path for each
            stat = os.stat(path)  # noqa: PTH116
            images.append(_Found(path, split, folder.name, (stat.st_size, stat.st_mtime_ns)))
    return images, others


def _name(folder: Path, root: Path) -> str:
    return folder.relative_to(root).as_posix()


def _as_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))
