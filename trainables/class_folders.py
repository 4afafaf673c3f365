"""Which images lie below the class folders of each split, and what is wrong with them? Nothing is decoded here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.errors import DataError
from trainables.problems import Problem, raise_problems, some_of
from trainables.sources import IMAGE_SUFFIXES, TRAIN, ImageFiles, Listing, Source, identity_of, with_free


@dataclass(frozen=True)
class ClassFolder:
    """A folder whose images are of one class."""

    path: Path
    split: int
    label: str


@dataclass(frozen=True)
class FoundImage:
    """One image file; `stamp` is its size in bytes and its time of change in ns."""

    path: str
    split: int
    label: str
    stamp: tuple[int, int]


def source_of_folders(
    root: Path,
    splits: Mapping[int, Path],
    *,
    classes_of: Callable[[Path, int], list[ClassFolder]],
    remedy: str,
    names_of: Callable[[list[str]], tuple[str, ...]] = tuple,
) -> Source:
    """A data set of class folders; classes are in alphabetical order of their labels.

    Args:
        root: folder that names of images are relative to.
        splits: the folder of each split.
        classes_of: the class folders of a split's folder.
        remedy: what a message says to do about problems.
        names_of: names that people know the sorted labels by.

    Raises:
        DataError: listing class folders without images, and classes that the splits do not have in common.
    """
    folders = {split: classes_of(folder, split) for split, folder in sorted(splits.items())}
    found: list[FoundImage] = []
    problems: list[Problem] = []
    for split, each in folders.items():
        if not each:
            problems.append(Problem(_relative(splits[split], root), "has no class folders"))
        for folder in each:
            images, others = images_below(folder)
            found += images
            if not images:
                extra = f", only {others} file(s) of other kinds" if others else ""
                problems.append(Problem(_relative(folder.path, root), f"class folder without images{extra}"))
    classes = {split: {folder.label for folder in each} for split, each in folders.items()}
    labels = sorted(set().union(*classes.values()))
    problems += _class_differences(splits, classes, root)
    if len(labels) == 1:
        problems.append(Problem(labels[0], "the only class; a classifier needs at least two"))
    raise_problems(str(root), problems, remedy=remedy)
    start = len(os.path.join(root, ""))  # noqa: PTH118
    names = tuple(image.path[start:].replace(os.sep, "/") for image in found)
    class_names = names_of(labels)
    stamps = (part for image in found for part in (image.path, image.label, image.stamp))
    identity = identity_of([root, *class_names, *stamps])
    return Source(str(root), identity, names, lambda: _listing(found, names, labels, class_names))


def _listing(
    found: list[FoundImage], names: tuple[str, ...], labels: list[str], class_names: tuple[str, ...]
) -> Listing:
    index = {label: number for number, label in enumerate(labels)}
    given = np.array([image.split for image in found], np.int8)
    return Listing(
        images=ImageFiles([image.path for image in found], names),
        labels=np.array([index[image.label] for image in found], np.int64),
        class_names=class_names,
        given_split=with_free(given),
    )


def images_below(folder: ClassFolder) -> tuple[list[FoundImage], int]:
    """The images anywhere below a class folder, sorted, and how many other visible files lie there."""
    images: list[FoundImage] = []
    others = 0
    for parent, folders, files in os.walk(folder.path, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.startswith("."):
                continue
            if not is_image(name):
                others += 1
                continue
            path = f"{parent}{os.sep}{name}"  # there may be a million: no Path for each
            try:
                stat = os.stat(path)  # noqa: PTH116
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror}); delete it or correct the link") from error
            images.append(FoundImage(path, folder.split, folder.label, (stat.st_size, stat.st_mtime_ns)))
    return images, others


def is_image(name: str) -> bool:
    """Whether a file's name ends like that of an image."""
    return name[name.rfind(".") :].lower() in IMAGE_SUFFIXES


def subfolders(folder: Path) -> list[Path]:
    """The visible folders in a folder, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def existing_root(path: str | Path) -> Path:
    """The absolute path of `task.data.root`.

    Raises:
        DataError: if it is not a folder.
    """
    root = Path(path).expanduser().absolute()
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise DataError(f"{root}: the folder of images {what}; correct task.data.root")
    return root


def _class_differences(splits: Mapping[int, Path], classes: dict[int, set[str]], root: Path) -> Iterator[Problem]:
    if TRAIN not in splits:
        return
    for split in sorted(classes.keys() - {TRAIN}):
        if not classes[split]:
            continue  # said already
        missing, extra = classes[TRAIN] - classes[split], classes[split] - classes[TRAIN]
        if missing:
            yield Problem(_relative(splits[split], root), f"lacks classes of train: {some_of(missing)}")
        if extra:
            yield Problem(_relative(splits[split], root), f"has classes that train lacks: {some_of(extra)}")


def _relative(folder: Path, root: Path) -> str:
    return folder.relative_to(root).as_posix()
