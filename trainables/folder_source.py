"""Which images lie in a person's own class folders? CLASS/*.jpg, or train/ val/ test/ with class folders in each."""

from __future__ import annotations

from pathlib import Path

from trainables.class_folders import ClassFolder, existing_root, images_below, source_of_folders, subfolders
from trainables.config import DataConfig
from trainables.errors import DataError
from trainables.sources import FREE, SPLIT_NAMES, TRAIN, Source


def folder_source(config: DataConfig) -> Source:
    """Class folders below `root`, with or without split folders above them.

    Raises:
        DataError: if they are not laid out so; all that is wrong is said at once.
    """
    assert config.root is not None  # DataConfig refuses it
    root = existing_root(config.root)
    return source_of_folders(
        root,
        _split_folders(root),
        classes_of=class_folders,
        remedy="expected CLASS/*.jpg, or train/CLASS/*.jpg with val/ and test/ alike; add images or delete the folders",
    )


def class_folders(folder: Path, split: int) -> list[ClassFolder]:
    """Each visible folder in a folder is a class of its name."""
    return [ClassFolder(path, split, path.name) for path in subfolders(folder)]


def _split_folders(root: Path) -> dict[int, Path]:
    """Split number to the folder that holds its class folders; {FREE: root} where class folders lie in the root.

    `train` counts as a split where it has class folders in it; where it holds images itself, beside other class
    folders, it is a class like them.
    """
    folders = subfolders(root)
    if not folders:
        raise DataError(f"{root}: no class folders found; put the images into {root}/CLASS/, one folder a class")
    named = [folder for folder in folders if _split_of(folder) is not None]
    others = [folder for folder in folders if _split_of(folder) is None]
    train = [folder for folder in named if _split_of(folder) == TRAIN]
    if any(map(subfolders, train)):
        _check_nothing_beside(root, named, others)
        return _by_split(root, named)
    found = ", ".join(folder.name for folder in named)
    if named and not others:
        what = f"{train[0].name} has no class folders" if train else "train is missing"
        raise DataError(f"{root}: {what}, found {found}; put the training images into {root}/train/CLASS/")
    nested = [folder.name for folder in named if any(map(_has_images, subfolders(folder)))]
    if nested:
        raise DataError(
            f"{root}: {', '.join(nested)} look like splits with class folders, but train is missing, found "
            f"{', '.join(folder.name for folder in others[:5])} beside them; put the training images into "
            f"{root}/train/CLASS/, or give the class another name"
        )
    return {FREE: root}


def _split_of(folder: Path) -> int | None:
    return SPLIT_NAMES.get(folder.name.casefold())


def _has_images(folder: Path) -> bool:
    return bool(images_below(ClassFolder(folder, FREE, folder.name))[0])


def _check_nothing_beside(root: Path, named: list[Path], others: list[Path]) -> None:
    with_images = [folder.name for folder in others if _has_images(folder)]
    if with_images:
        raise DataError(
            f"{root}: split folders ({', '.join(folder.name for folder in named)}) lie beside other folders of images "
            f"({', '.join(with_images[:5])}); move these into train/, or away"
        )


def _by_split(root: Path, named: list[Path]) -> dict[int, Path]:
    splits: dict[int, Path] = {}
    for folder in named:
        split = SPLIT_NAMES[folder.name.casefold()]
        if split in splits:
            raise DataError(f"{root}: both {splits[split].name} and {folder.name} found; keep one of them")
        splits[split] = folder
    return splits
