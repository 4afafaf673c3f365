"""Where do the pixels of a batch come from? Out of a memory map, or decoded ahead of their use, in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np

from trainables.decode import Decoding, cause_of, decode_errors, decode_row
from trainables.errors import DataError
from trainables.loading import Loading
from trainables.sources import EncodedImages

# Batches that are decoded before they are asked for: so many, and no more bytes than these (but always one).
_AHEAD = 3
_AHEAD_BYTES = 2**29
_PARTS_PER_THREAD = 2  # of a batch, so that a thread with quick images takes more of them

Shape = tuple[int, int, int, int]
_Batch = tuple[np.ndarray, list["Future[None]"]]


class ImageStore(Protocol):
    """Images of one shape by row number."""

    @property
    def shape(self) -> Shape:
        """(N, H, W, C)."""
        ...

    @property
    def loading(self) -> Loading:
        """Whether the images are kept decoded."""
        ...

    def batches(self, rows: Iterable[np.ndarray], *, num_threads: int = 1) -> Iterator[np.ndarray]:
        """For each array of row numbers its images, (B, H, W, C) uint8, of their own memory, in order."""
        ...


class MemoryImages:
    """Decoded images, shared by all processes of a node through a memory map.

    Args:
        images: (N, H, W, C) uint8.
    """

    loading: Loading = "memory"

    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    @property
    def shape(self) -> Shape:
        count, height, width, channels = self.images.shape
        return count, height, width, channels

    def batches(self, rows: Iterable[np.ndarray], *, num_threads: int = 1) -> Iterator[np.ndarray]:
        """Copies them out of the map; more threads do not help."""
        del num_threads
        for each in rows:
            yield self.images[each]


class StreamedImages:
    """Images that are decoded whenever they are asked for, to the same pixels as those of a memory map.

    Args:
        images: as they lie on disk.
        kept: (N,) int64, the row of `images` behind each row of this; unreadable images are left out so.
        shape: (H, W, C) of all.
    """

    loading: Loading = "stream"

    def __init__(
        self, images: EncodedImages, *, kept: np.ndarray, shape: tuple[int, int, int], decoding: Decoding
    ) -> None:
        self._images = images
        self._kept = kept
        self._shape = shape
        self._decoding = decoding

    @property
    def shape(self) -> Shape:
        return (len(self._kept), *self._shape)

    def batches(self, rows: Iterable[np.ndarray], *, num_threads: int = 1) -> Iterator[np.ndarray]:
        """Decodes a few batches ahead; the threads end with the iterator, also where it is closed early.

        Raises:
            DataError: naming the first image of a batch that cannot be read any more.
        """
        pool = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")
        waiting: deque[_Batch] = deque()
        try:
            for each in rows:
                waiting.append(self._start(pool, each, num_parts=num_threads * _PARTS_PER_THREAD))
                if len(waiting) > self._num_ahead(len(each)):
                    yield _finish(waiting.popleft())
            while waiting:
                yield _finish(waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _num_ahead(self, batch_size: int) -> int:
        return max(1, min(_AHEAD, _AHEAD_BYTES // max(1, batch_size * int(np.prod(self._shape)))))

    def _start(self, pool: ThreadPoolExecutor, rows: np.ndarray, *, num_parts: int) -> _Batch:
        out = np.empty((len(rows), *self._shape), np.uint8)
        size = max(1, -(-len(rows) // num_parts))
        starts = range(0, len(rows), size)
        return out, [
            pool.submit(self._decode, rows[start : start + size], out[start : start + size]) for start in starts
        ]

    def _decode(self, rows: np.ndarray, out: np.ndarray) -> None:
        for slot, row in enumerate(self._kept[rows].tolist()):
            try:
                out[slot] = decode_row(self._images, row, self._decoding)
            except decode_errors() as error:
                raise DataError(
                    f"{self._images.name(row)}: cannot be read any more ({cause_of(error)}); "
                    "restore the image, or start a new search without it"
                ) from error


def _finish(batch: _Batch) -> np.ndarray:
    images, parts = batch
    for part in parts:
        part.result()
    return images
