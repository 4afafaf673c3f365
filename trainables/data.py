"""What does a trial learn from? Decoded images, kept once per node in a memory map, and their three splits."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from trainables.config import DataConfig, SplitConfig
from trainables.decode import Progress, decode_files, inspect_files, resize_arrays
from trainables.errors import DataError
from trainables.sources import FREE, TEST, TRAIN, VAL, Listing, Source, find_source

# Part of every cache key: raise it when decoding changes, so that older caches are not read.
_CACHE_VERSION = 1
_SPLIT_NAMES = ("train", "val", "test")


@dataclass(frozen=True)
class ImageData:
    """The decoded images of a task, shared by all trials of a node through a memory map.

    Attributes:
        images: (N, H, W, C) uint8, read-only memory map; C is 1 for gray, 3 for RGB.
        labels: (N,) int64, indices into class_names.
        class_names: sorted for folders, in the data set's own order otherwise.
        given_split: (N,) int8; 0 train, 1 val, 2 test where the data set fixes it, -1 to be divided by fraction.
        names: relative path of each image of a folder, else None.
        fingerprint: hash of pixels, labels, class names and given splits, 16 hexadecimal digits.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    given_split: np.ndarray
    names: tuple[str, ...] | None
    fingerprint: str


@dataclass(frozen=True)
class Splits:
    """Row numbers of each split, int64, sorted; disjoint, and every row is in one of them."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def cache_dir() -> Path:
    """Where decoded images are kept: $VISTUNE_CACHE, else $XDG_CACHE_HOME/vistune, else ~/.cache/vistune."""
    if chosen := os.environ.get("VISTUNE_CACHE"):
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "vistune"


def load_data(config: DataConfig, *, cache_root: Path | None = None, progress: Progress | None = None) -> ImageData:
    """The images of a data set, decoded by the first process of a node that asks and mapped by all others.

    Args:
        config: which images, and to which size they are brought.
        cache_root: where decoded images are kept; `cache_dir()` by default.
        progress: called with the images decoded so far and in all; not called when the cache has them.

    Raises:
        DataError: if the data set is missing, badly laid out, unreadable, or larger than the free disk space.
    """
    from filelock import FileLock

    source = find_source(config)
    root = cache_root or cache_dir()
    folder = root / _cache_key(config, source)
    if not folder.is_dir():
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{folder.name}.lock"):
            if not folder.is_dir():  # another process may have built it while this one waited
                _build_cache(config, source, folder, progress)
    return _open_cache(folder, source)


def make_splits(data: ImageData, split: SplitConfig) -> Splits:
    """Divides the images into train, validation and test, class by class, fixed by the seed.

    Given splits stay as they are. Where validation or test is not given, its fraction of the remaining images of
    each class is drawn: the fraction of the class's images rounded half up, at least 1; where that would leave no
    training image, the larger of the two gives one up.

    Raises:
        DataError: if a class has too few images to be in every split.
    """
    carved = [each for each in (VAL, TEST) if not (data.given_split == each).any()]
    fractions = {VAL: split.val, TEST: split.test}
    assigned = np.where(data.given_split == FREE, TRAIN, data.given_split)
    free = data.given_split == FREE
    _check_enough_images(data, free, num_parts=len(carved) + 1 if free.any() else 0)
    rng = np.random.default_rng(split.seed)
    for label in range(len(data.class_names)):
        rows = rng.permutation(np.flatnonzero(free & (data.labels == label)))
        counts = _share(len(rows), [fractions[each] for each in carved])
        for each, count in zip(carved, counts, strict=True):
            assigned[rows[:count]] = each
            rows = rows[count:]
    return Splits(*(np.flatnonzero(assigned == each).astype(np.int64) for each in (TRAIN, VAL, TEST)))


def write_splits(path: Path, splits: Splits, data: ImageData) -> None:
    """Writes a CSV with the columns row, split, label (the class's name) and name (the image's, where it has one)."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["row", "split", "label", "name"])
        for split in _SPLIT_NAMES:
            for row in getattr(splits, split).tolist():
                label = data.class_names[data.labels[row]]
                writer.writerow([row, split, label, data.names[row] if data.names else ""])
    temporary.replace(path)


def read_splits(path: Path) -> Splits:
    """The splits that `write_splits` wrote.

    Raises:
        DataError: if the file is missing or is not such a CSV.
    """
    rows: dict[str, list[int]] = {split: [] for split in _SPLIT_NAMES}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                rows[line["split"]].append(int(line["row"]))
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path}: not a splits file ({error!r}); start the search anew to write it") from error
    return Splits(*(np.array(sorted(rows[split]), np.int64) for split in _SPLIT_NAMES))


def _check_enough_images(data: ImageData, free: np.ndarray, *, num_parts: int) -> None:
    counts = np.bincount(data.labels[free], minlength=len(data.class_names))
    small = [f"{name} ({count})" for name, count in zip(data.class_names, counts, strict=True) if count < num_parts]
    if small:
        shown = ", ".join(small[:20]) + (f" and {len(small) - 20} more" if len(small) > 20 else "")
        raise DataError(
            f"splits: each class needs at least {num_parts} images to be in each of {num_parts} splits, "
            f"too few in: {shown}; add images or remove the classes"
        )


def _share(count: int, fractions: list[float]) -> list[int]:
    """How many of `count` images each fraction gets; see `make_splits` for the rounding."""
    # Fractions of the written decimals: 0.15 of 10 is 1.5 and rounds to 2, which floats would miss at times.
    shares = [max(1, int(Fraction(str(fraction)) * count + Fraction(1, 2))) for fraction in fractions]
    while shares and sum(shares) >= count and max(shares) > 1:
        shares[shares.index(max(shares))] -= 1
    return shares


def _cache_key(config: DataConfig, source: Source) -> str:
    content = json.dumps([_CACHE_VERSION, config.name, config.image_size, source.identity])
    return f"{config.name}-{hashlib.blake2b(content.encode(), digest_size=8).hexdigest()}"


def _build_cache(config: DataConfig, source: Source, folder: Path, progress: Progress | None) -> None:
    """Decodes into a temporary folder that takes its final name when complete, so a killed builder harms nobody."""
    temporary = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a builder that was killed; the lock is ours
    temporary.mkdir()
    try:
        _write_cache(config, source, temporary, progress)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_cache(config: DataConfig, source: Source, folder: Path, progress: Progress | None) -> None:
    listing = source.read()
    if isinstance(listing.images, np.ndarray):
        side = config.image_size
        _, height, width, channels = listing.images.shape
        shape = (height, width, channels) if side is None else (side, side, channels)
    else:
        shape = inspect_files(listing.images, root=source.where, image_size=config.image_size)
    images = _allocate(folder / "images.npy", (len(listing.labels), *shape))
    if isinstance(listing.images, np.ndarray):
        resize_arrays(listing.images, images, progress=progress)
    else:
        decode_files(listing.images, images, root=source.where, image_size=config.image_size, progress=progress)
    images.flush()
    np.save(folder / "labels.npy", listing.labels)
    np.save(folder / "given_split.npy", listing.given_split)
    meta = {
        "class_names": listing.class_names,
        "fingerprint": _fingerprint(images, listing),
        "data": config.model_dump(),
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")


def _allocate(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """A new .npy file of uint8 zeros, mapped for writing, its blocks reserved on disk.

    Raises:
        DataError: if the disk has too little room; without the reservation a full disk would kill the process.
    """
    needed = int(np.prod(shape, dtype=np.int64)) + 4096
    free = shutil.disk_usage(path.parent).free
    if needed > free * 0.98:
        raise DataError(
            f"{path.parents[1]}: decoded images need {needed / 2**30:.2f} GiB, only {free / 2**30:.2f} GiB are free; "
            "set VISTUNE_CACHE to a larger disk, or task.data.image_size to a smaller side"
        )
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return images


def _fingerprint(images: np.ndarray, listing: Listing) -> str:
    digest = hashlib.blake2b(digest_size=8)
    digest.update(json.dumps([images.shape, listing.class_names]).encode())
    step = max(1, 2**24 // images[0].nbytes)
    for start in range(0, len(images), step):
        digest.update(images[start : start + step].tobytes())
    digest.update(listing.labels.astype(np.int64).tobytes())
    digest.update(listing.given_split.astype(np.int8).tobytes())
    return digest.hexdigest()


def _open_cache(folder: Path, source: Source) -> ImageData:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    return ImageData(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        labels=np.load(folder / "labels.npy"),
        class_names=tuple(meta["class_names"]),
        given_split=np.load(folder / "given_split.npy"),
        names=source.names,
        fingerprint=meta["fingerprint"],
    )
