"""What does a trial learn from? Images of one shape, decoded or streamed, with their labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.config import DataConfig
from trainables.decode import Decoding, Progress
from trainables.find_source import find_source
from trainables.image_cache import CacheEntry, build_entry, cache_key, check_problems, choice_for, find_entry, is_ready
from trainables.loading import Loading
from trainables.metric_names import LabelKind
from trainables.sources import Source
from trainables.streaming import ImageStore, MemoryImages, StreamedImages


@dataclass(frozen=True)
class ImageData:
    """The images of a task, the same for all trials of a node.

    Attributes:
        store: the images; see `take` and `batches`.
        labels: (N,) int64, indices into class_names; for multi-label data (N, C) uint8 of 0 and 1.
        class_names: sorted for folders, in the data set's own order otherwise.
        given_split: (N,) int8; 0 train, 1 val, 2 test where the data set fixes it, -1 to be divided by fraction.
        names: relative path of each image of a folder or table, split and row of a table's images; else None.
        fingerprint: hash of pixels, labels, class names and given splits, 16 hexadecimal digits; the same whether
            images are kept or streamed, and wherever they lie.
        pixel_sums: (N, 2, C) uint64, of each image and channel the sum of its values and that of their squares.
        skipped: path and reason of each image left out because it cannot be read.
        loading_reason: why the images are loaded as they are, as part of a sentence.
    """

    store: ImageStore
    labels: np.ndarray
    class_names: tuple[str, ...]
    given_split: np.ndarray
    names: tuple[str, ...] | None
    fingerprint: str
    pixel_sums: np.ndarray
    skipped: tuple[str, ...] = ()
    loading_reason: str = ""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C) of the images; C is 1 for gray, 3 for RGB."""
        return self.store.shape

    @property
    def loading(self) -> Loading:
        """Whether decoded images are kept in memory, or streamed."""
        return self.store.loading

    @property
    def images(self) -> np.ndarray:
        """(N, H, W, C) uint8, read-only memory map; only where images are not streamed."""
        assert isinstance(self.store, MemoryImages), "streamed images have to be asked for with take or batches"
        return self.store.images

    @property
    def kind(self) -> LabelKind:
        """What the labels are, which decides the metrics."""
        if self.labels.ndim == 2:
            return "multilabel"
        return "binary" if len(self.class_names) == 2 else "multiclass"

    def batches(self, rows: Iterable[np.ndarray], *, num_threads: int = 1) -> Iterator[np.ndarray]:
        """For each array of row numbers its images, in order; streamed images are decoded a few batches ahead.

        The pixels do not depend on the number of threads. Threads end with the iterator, or when it is closed.

        Args:
            rows: (B,) int64 each; taken from the iterable a few batches ahead.
            num_threads: threads that decode streamed images.

        Returns:
            (B, H, W, C) uint8 each, of their own memory.

        Raises:
            DataError: naming an image that cannot be read any more.
        """
        return self.store.batches(rows, num_threads=num_threads)

    def take(self, rows: np.ndarray, *, num_threads: int = 1) -> np.ndarray:
        """The images of some rows, (B, H, W, C) uint8, of their own memory. Raises as `batches` does."""
        (images,) = self.batches([rows], num_threads=num_threads)
        return images

    def channel_statistics(self, rows: np.ndarray) -> tuple[list[float], list[float]]:
        """Mean and standard deviation per channel in [0, 1] over all pixels of some images; nothing is decoded.

        Args:
            rows: the images to use, int64; the training split, so that nothing leaks from the others.
        """
        _, height, width, _ = self.shape
        total, squares = self.pixel_sums[rows].sum(axis=0, dtype=np.float64) / (len(rows) * height * width)
        deviation = np.sqrt(np.maximum(squares - total**2, 0))
        return (total / 255).tolist(), np.maximum(deviation / 255, 1e-3).tolist()


def cache_dir() -> Path:
    """Where decoded images are kept: $VISTUNE_CACHE, else $XDG_CACHE_HOME/vistune, else ~/.cache/vistune."""
    if chosen := os.environ.get("VISTUNE_CACHE"):
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "vistune"


def load_data(config: DataConfig, *, cache_root: Path | None = None, progress: Progress | None = None) -> ImageData:
    """The images of a data set, all decoded once by the first process of a node that asks.

    That finds those which cannot be read. The decoded images are kept for all processes to map, or thrown away where
    images are streamed.

    Args:
        config: which images, and to which size they are brought.
        cache_root: where decoded images are kept; `cache_dir()` by default.
        progress: called with the images decoded so far and in all; not called when the cache has them.

    Raises:
        DataError: if the data set is missing, badly laid out, unreadable, or larger than the free disk space.
    """
    source = find_source(config)
    folder = (cache_root or cache_dir()) / cache_key(config, source)
    entry = _obtain(config, source, folder, progress)
    check_problems(config, source, entry.problems)
    choice = choice_for(entry, config, folder)
    if choice.loading == "memory" and entry.images is not None:
        store: ImageStore = MemoryImages(entry.images)
    else:
        store = _stream(config, source, entry)
    return ImageData(
        store=store,
        labels=entry.labels,
        class_names=entry.class_names,
        given_split=entry.given_split,
        names=None if source.names is None else tuple(source.names[row] for row in entry.kept.tolist()),
        fingerprint=entry.fingerprint,
        pixel_sums=entry.pixel_sums,
        skipped=tuple(str(problem) for problem in entry.problems),
        loading_reason=choice.reason,
    )


def _obtain(config: DataConfig, source: Source, folder: Path, progress: Progress | None) -> CacheEntry:
    from filelock import FileLock

    entry = find_entry(folder)
    if entry is None or not is_ready(entry, config, folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f"{folder.name}.lock"):
            entry = find_entry(folder)
            if entry is None or not is_ready(entry, config, folder):  # another process may have built it meanwhile
                build_entry(config, source, folder, progress)
                entry = find_entry(folder)
    assert entry is not None
    return entry


def _stream(config: DataConfig, source: Source, entry: CacheEntry) -> StreamedImages:
    images = source.read().images
    assert not isinstance(images, np.ndarray)  # what comes decoded is kept
    _, height, width, channels = entry.shape
    decoding = Decoding(channels, config.image_size, config.interpolation)
    return StreamedImages(images, kept=entry.kept, shape=(height, width, channels), decoding=decoding)
