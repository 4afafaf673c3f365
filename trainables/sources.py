"""What is a data set before it is decoded? Its images one by one, their labels, and what tells that it changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

# What `given_split` holds; FREE images are divided by fraction.
TRAIN, VAL, TEST, FREE = 0, 1, 2, -1
SPLIT_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VAL,
    "valid": VAL,
    "validation": VAL,
    "dev": VAL,
    "test": TEST,
    "testing": TEST,
}

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2", ".avif")
)


class EncodedImages(Protocol):
    """Images as they lie on disk; may be read from several threads at once."""

    def __len__(self) -> int: ...

    def open(self, row: int) -> Image:
        """The image before its pixels are read; to be closed by the caller. Raises what PIL does."""
        ...

    def name(self, row: int) -> str:
        """How messages name the image."""
        ...


@dataclass(frozen=True)
class ImageFiles:
    """Image files.

    Attributes:
        paths: where each lies.
        names: how messages name each, most often relative to the data set's folder.
    """

    paths: Sequence[str]
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, row: int) -> Image:
        from PIL import Image

        return Image.open(self.paths[row])

    def name(self, row: int) -> str:
        return self.names[row]


@dataclass(frozen=True)
class Listing:
    """The images of a data set and what is known of each.

    Attributes:
        images: still encoded, or decoded pixels, (N, H, W, C) uint8.
        labels: (N,) int64; for multi-label data (N, C) uint8 of 0 and 1.
        class_names: one a label.
        given_split: (N,) int8; 0 train, 1 val, 2 test, -1 to be divided by fraction.
    """

    images: EncodedImages | np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    given_split: np.ndarray


@dataclass(frozen=True)
class Source:
    """A data set as it lies on disk.

    Attributes:
        where: how messages name it.
        identity: hash that changes when the data set does; found without decoding any image.
        names: of each image, relative to the data set; None where images have none.
        read: lists the images; called only when they are not decoded yet, or decoded again and again.
    """

    where: str
    identity: str
    names: tuple[str, ...] | None
    read: Callable[[], Listing]


def identity_of(parts: Iterable[object]) -> str:
    """A hash of the texts of some values, 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        text = str(part).encode("utf-8", "surrogateescape")  # file names may be any bytes
        digest.update(len(text).to_bytes(8, "little") + text)  # with its length, so that no two lists run together
    return digest.hexdigest()


def with_free(given_split: np.ndarray) -> np.ndarray:
    """Splits as a data set gives them, its training images set free where validation or test has to be carved.

    Args:
        given_split: (N,) int8.
    """
    if {VAL, TEST} <= set(np.unique(given_split).tolist()):
        return given_split
    return np.where(given_split == TRAIN, FREE, given_split).astype(np.int8)
