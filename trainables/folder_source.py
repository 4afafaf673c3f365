"""Which images lie in a person's own class folders? CLASS/*.jpg, or train/ val/ test/ with class folders in each."""

from __future__ import annotations

from pathlib import Path

from trainables.class_folders import ClassFolder, existing_root, images_below, source_of_folders, subfolders
from trainables.config import DataConfig
from trainables.errors import DataError
from trainables.sources import FREE, SPLIT_NAMES, Source


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
    named = [folder for folder in folders if folder.name in SPLIT_NAMES]
    others = [folder for folder in folders if folder.name not in SPLIT_NAMES]
    train = root / "train"
    if not folders:
        raise DataError(f"{root}: no class folders found; put the images into {root}/CLASS/, one folder a class")
    train_is_split = train in named and bool(subfolders(train))
    if train_is_split:
        with_images = [each.name for each in others if images_below(ClassFolder(each, FREE, each.name))[0]]
        if with_images:
            raise DataError(
                f"{root}: split folders ({', '.join(f.name for f in named)}) lie beside other folders of images "
                f"({', '.join(with_images[:5])}); move these into train/, or away"
            )
        splits: dict[int, Path] = {}
        for folder in named:
            split = SPLIT_NAMES[folder.name]
            if split in splits:
                raise DataError(f"{root}: both {splits[split].name} and {folder.name} found; keep one of them")
            splits[split] = folder
        return splits
    if named and not others:
        what = "train has no class folders" if train in named else "train is missing"
        found = ", ".join(folder.name for folder in named)
        raise DataError(f"{root}: {what}, found {found}; put the training images into {root}/train/CLASS/")
    return {FREE: root}
