"""What does a node remember of a data set? Decoded images or the proof that they can be decoded, and their labels."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainables.config import DataConfig
from trainables.decode import Decoded, Decoding, Progress, decode_all, inspect_images, resize_all
from trainables.errors import DataError
from trainables.loading import Choice, choose_loading, fits_on_disk, free_disk, gib, node_memory
from trainables.problems import Problem, raise_problems, some_of
from trainables.sources import Listing, Source

# Part of every cache key: raise it when decoding changes, so that older caches are not read.
_CACHE_VERSION = 2
_IMAGES, _META = "images.u8", "meta.json"
_REMEDY = "some images cannot be read; replace or delete them, or set task.data.on_corrupt: skip, then start again"


@dataclass(frozen=True)
class CacheEntry:
    """A data set of this node after one pass over its images.

    Attributes:
        shape: (N, H, W, C) of the readable images.
        labels, given_split: as in `ImageData`, of the readable images.
        kept: (N,) int64, their rows in the data set's listing.
        pixel_sums: (N, 2, C) uint64, of each image and channel the sum of its values and that of their squares.
        problems: why each other image cannot be read.
        num_listed: images in the listing, readable or not.
        arrays: whether the data set comes decoded.
        images: (N, H, W, C) uint8, read-only memory map; None where they are not kept.
    """

    shape: tuple[int, int, int, int]
    labels: np.ndarray
    given_split: np.ndarray
    kept: np.ndarray
    pixel_sums: np.ndarray
    class_names: tuple[str, ...]
    fingerprint: str
    problems: tuple[Problem, ...]
    num_listed: int
    arrays: bool
    images: np.ndarray | None


def cache_key(config: DataConfig, source: Source) -> str:
    """Name of the folder of a data set; another one when the data set or its decoding changes."""
    content = json.dumps([_CACHE_VERSION, config.name, config.image_size, config.interpolation, source.identity])
    return f"{config.name}-{hashlib.blake2b(content.encode(), digest_size=8).hexdigest()}"


def find_entry(folder: Path) -> CacheEntry | None:
    """What the cache has in a folder, mapped in milliseconds; None where it has nothing, or what it has is damaged.

    Images whose file has not the size that it should have are not there.
    """
    try:
        return _read_entry(folder)
    except (OSError, ValueError, EOFError, LookupError, TypeError):  # what readers of damaged files raise
        return None


def _read_entry(folder: Path) -> CacheEntry:
    meta = json.loads((folder / _META).read_text(encoding="utf-8"))
    shape = tuple(meta["shape"])
    images = folder / _IMAGES
    return CacheEntry(
        shape=shape,
        labels=np.load(folder / "labels.npy"),
        given_split=np.load(folder / "given_split.npy"),
        kept=np.load(folder / "kept.npy"),
        pixel_sums=np.load(folder / "pixel_sums.npy", mmap_mode="r"),
        class_names=tuple(meta["class_names"]),
        fingerprint=meta["fingerprint"],
        problems=tuple(Problem(*each) for each in meta["problems"]),
        num_listed=meta["num_listed"],
        arrays=meta["arrays"],
        images=np.memmap(images, np.uint8, mode="r", shape=shape) if _is_whole(images, shape) else None,
    )


def _is_whole(images: Path, shape: tuple[int, ...]) -> bool:
    return images.is_file() and images.stat().st_size == int(np.prod(shape, dtype=np.int64))


def is_ready(entry: CacheEntry, config: DataConfig, folder: Path) -> bool:
    """Whether an entry has all that the configuration asks for."""
    return entry.images is not None or choice_for(entry, config, folder).loading == "stream"


def choice_for(entry: CacheEntry, config: DataConfig, folder: Path) -> Choice:
    """How the images of an entry are loaded."""
    shape = (entry.num_listed, *entry.shape[1:])
    return _choose(config, shape, arrays=entry.arrays, kept=entry.images is not None, folder=folder)


def _choose(config: DataConfig, shape: tuple[int, ...], *, arrays: bool, kept: bool, folder: Path) -> Choice:
    if arrays:
        return Choice("memory", f"the images of {config.name} come decoded")
    return choose_loading(
        config.loading,
        needed=int(np.prod(shape, dtype=np.int64)),
        memory=node_memory(),
        disk=None if kept else free_disk(folder.parent),
    )


def build_entry(config: DataConfig, source: Source, folder: Path, progress: Progress | None) -> None:
    """Decodes into a temporary folder that takes its final name when complete, so a killed builder harms nobody.

    Where the folder is there already, without images, only these are added; one that is damaged goes. Call it under the
    folder's lock.

    Raises:
        DataError: listing the images that cannot be read; or if the disk is too small.
    """
    temporary = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a builder that was killed; the lock is ours
    temporary.mkdir()
    try:
        _write_entry(config, source, temporary, progress)
        if find_entry(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)
        if not folder.is_dir():
            temporary.replace(folder)
        elif (temporary / _IMAGES).is_file():
            (temporary / _IMAGES).replace(folder / _IMAGES)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_entry(config: DataConfig, source: Source, folder: Path, progress: Progress | None) -> None:
    listing = source.read()
    one = _shape_of_one(listing, config, source)
    shape = (len(listing.labels), *one)
    decoding = Decoding(one[-1], config.image_size, config.interpolation)
    arrays = isinstance(listing.images, np.ndarray)
    choice = _choose(config, shape, arrays=arrays, kept=False, folder=folder)
    out = _allocate(folder / _IMAGES, shape) if choice.loading == "memory" else None
    if isinstance(listing.images, np.ndarray):
        assert out is not None  # what comes decoded is kept
        decoded = resize_all(listing.images, decoding, out=out, progress=progress)
    else:
        decoded = decode_all(listing.images, decoding, out=out, progress=progress)
    problems = tuple(decoded.problems[row] for row in sorted(decoded.problems))
    check_problems(config, source, problems)
    kept = np.setdiff1d(np.arange(len(listing.labels)), np.fromiter(decoded.problems, np.int64))
    _check_classes_are_left(listing, kept, problems, source)
    if out is not None:
        _close_gaps(out, kept, folder / _IMAGES)
    _write_index(folder, listing, decoded, kept=kept, problems=problems, shape=(len(kept), *one), arrays=arrays)


def check_problems(config: DataConfig, source: Source, problems: tuple[Problem, ...]) -> None:
    """Refuses images that cannot be read, unless they are to be left out.

    Raises:
        DataError: listing them.
    """
    if config.on_corrupt == "fail":
        raise_problems(source.where, problems, remedy=_REMEDY)


def _shape_of_one(listing: Listing, config: DataConfig, source: Source) -> tuple[int, int, int]:
    if not isinstance(listing.images, np.ndarray):
        return inspect_images(listing.images, where=source.where, image_size=config.image_size)
    _, height, width, channels = listing.images.shape
    return (height, width, channels) if config.image_size is None else (config.image_size, config.image_size, channels)


def _write_index(
    folder: Path,
    listing: Listing,
    decoded: Decoded,
    *,
    kept: np.ndarray,
    problems: tuple[Problem, ...],
    shape: tuple[int, ...],
    arrays: bool,
) -> None:
    labels, given = listing.labels[kept], listing.given_split[kept].astype(np.int8)
    np.save(folder / "labels.npy", labels)
    np.save(folder / "given_split.npy", given)
    np.save(folder / "kept.npy", kept)
    np.save(folder / "pixel_sums.npy", decoded.sums[kept])
    digest = hashlib.blake2b(json.dumps([shape, listing.class_names]).encode(), digest_size=8)
    for part in (decoded.digests[kept], labels, given):
        digest.update(np.ascontiguousarray(part).data)
    meta: dict[str, Any] = {
        "shape": shape,
        "class_names": listing.class_names,
        "fingerprint": digest.hexdigest(),
        "problems": [[problem.where, problem.what] for problem in problems],
        "num_listed": len(listing.labels),
        "arrays": arrays,
    }
    (folder / _META).write_text(json.dumps(meta, indent=1), encoding="utf-8")


def _check_classes_are_left(listing: Listing, kept: np.ndarray, problems: tuple[Problem, ...], source: Source) -> None:
    def count(labels: np.ndarray) -> np.ndarray:
        per_class = np.bincount(labels, minlength=len(listing.class_names)) if labels.ndim == 1 else labels.sum(axis=0)
        return np.asarray(per_class)

    lost = np.flatnonzero((count(listing.labels) > 0) & (count(listing.labels[kept]) == 0))
    if len(lost):
        names = some_of([listing.class_names[label] for label in lost])
        remedy = f"no readable image is left of: {names}; replace these files, or delete the classes"
        raise_problems(source.where, problems, remedy=remedy)


def _close_gaps(images: np.ndarray, kept: np.ndarray, path: Path) -> None:
    """Moves the kept images to the front of the file, and cuts off what is behind them."""
    for row in np.flatnonzero(kept != np.arange(len(kept))).tolist():
        images[row] = images[kept[row]]
    size = images[: len(kept)].nbytes
    del images
    os.truncate(path, size)


def _allocate(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """A new file of uint8 zeros, mapped for writing, its blocks reserved on disk.

    Raises:
        DataError: if the disk has too little room; without the reservation a full disk would kill the process.
    """
    needed = int(np.prod(shape, dtype=np.int64))
    free = free_disk(path.parent)
    if not fits_on_disk(needed, free):
        raise DataError(
            f"{path.parents[1]}: decoded images need {gib(needed)} GiB, only {gib(free)} GiB are free; "
            "set VISTUNE_CACHE to a larger disk, task.data.image_size to a smaller side, or task.data.loading: stream"
        )
    images = np.memmap(path, np.uint8, mode="w+", shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, needed)
    return images
