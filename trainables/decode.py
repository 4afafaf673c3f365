"""How does an encoded image become pixels? Sizes, channels, orientation, resizing; many images at once, in threads."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from trainables.errors import DataError
from trainables.problems import Problem, raise_problems
from trainables.sources import EncodedImages

if TYPE_CHECKING:
    from PIL.Image import Image

Result = TypeVar("Result")
Progress = Callable[[int, int], None]  # images done, images in all

DIGEST_SIZE = 16
_CHUNK = 64
_GRAY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
_ORIENTATION = 0x0112  # Exif tag; values from 5 on swap width and height
# A JPEG is decoded at 1/2, 1/4 or 1/8 while that leaves this many times the wanted side; from 3 on Pillow calls the
# result indistinguishable (Image.resize, reducing_gap). On photographs the mean difference is 1 of 255.
_DRAFT_GAP = 3


@dataclass(frozen=True)
class Decoding:
    """What all images of a data set are brought to.

    Attributes:
        channels: 1 for gray, 3 for RGB.
        image_size: side in pixels, or None to keep their size.
    """

    channels: int
    image_size: int | None
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"


@dataclass(frozen=True)
class Decoded:
    """What a pass over all images found.

    Attributes:
        digests: (N, 16) uint8, a hash of the pixels of each image.
        sums: (N, 2, C) uint64, for each image and channel the sum of its values and that of their squares.
        problems: of the images that cannot be read, by row; their digests and sums are 0.
    """

    digests: np.ndarray
    sums: np.ndarray
    problems: dict[int, Problem]


@dataclass(frozen=True)
class _Header:
    """What the first bytes of an image file say: (width, height) in pixels as displayed, and its colours."""

    size: tuple[int, int]
    gray: bool


def inspect_images(images: EncodedImages, *, where: str, image_size: int | None) -> tuple[int, int, int]:
    """The shape (H, W, C) that all images get; only headers are read, and unreadable ones are passed over.

    Args:
        where: how messages name the data set.
        image_size: side that images are brought to, or None to keep their common size.

    Raises:
        DataError: if no image can be read, or no image_size is given and sizes differ or are not square.
    """
    headers: list[_Header] = []
    for found in _in_threads(lambda chunk: _read_headers(images, chunk), len(images)):
        headers += found
    if not headers:
        # Decoding would fail on each of them: say why, as for any unreadable image.
        reasons = ((row, _reason(images, row)) for row in range(len(images)))
        problems = [Problem(images.name(row), reason) for row, reason in reasons if reason]
        raise_problems(where, problems, remedy="no image can be read; replace or delete these files")
    channels = 1 if all(header.gray for header in headers) else 3
    if image_size is not None:
        return image_size, image_size, channels
    sizes = Counter(header.size for header in headers)
    shortest = min(min(size) for size in sizes)
    if len(sizes) > 1:
        common = ", ".join(f"{w}x{h} ({count} images)" for (w, h), count in sizes.most_common(5))
        raise DataError(
            f"{where}: images must have one size, found {len(sizes)}: {common}; "
            f"set task.data.image_size, for instance {max(4, min(shortest, 224))}"
        )
    width, height = next(iter(sizes))
    if width != height:
        raise DataError(
            f"{where}: images must be square, found {width}x{height}; "
            f"set task.data.image_size, for instance {max(4, min(shortest, 224))}, to have them cropped"
        )
    return height, width, channels


def decode_all(
    images: EncodedImages, decoding: Decoding, *, out: np.ndarray | None = None, progress: Progress | None = None
) -> Decoded:
    """Decodes every image, to keep it or only to know that it can be.

    Args:
        out: (N, H, W, C) uint8, written in place; None throws the pixels away.
        progress: called after each group of images.
    """

    def one(row: int) -> np.ndarray | Problem:
        try:
            pixels = decode_row(images, row, decoding)
            if out is not None:
                out[row] = pixels
        except decode_errors() as error:
            return Problem(images.name(row), cause_of(error))
        return pixels

    return _survey(one, len(images), channels=decoding.channels, progress=progress)


def resize_all(images: np.ndarray, decoding: Decoding, *, out: np.ndarray, progress: Progress | None = None) -> Decoded:
    """Brings decoded images to the size of `out`; a plain copy where they have it.

    Args:
        images: (N, H, W, C) uint8, C of 1 or 3.
        out: (N, S, S, C) uint8, written in place.
    """

    def one(row: int) -> np.ndarray:
        from PIL import Image

        pixels: np.ndarray = images[row]
        if images.shape != out.shape:
            picture = Image.fromarray(pixels[:, :, 0] if decoding.channels == 1 else pixels)
            pixels = _pixels(picture, decoding)
        out[row] = pixels
        return pixels

    return _survey(one, len(images), channels=decoding.channels, progress=progress)


def decode_row(images: EncodedImages, row: int, decoding: Decoding) -> np.ndarray:
    """One image, (H, W, C) uint8, perhaps read-only. Raises what `decode_errors` lists."""
    with images.open(row) as image:
        return _pixels(image, decoding)


def decode_image(
    path: Path, *, image_size: int, channels: int, interpolation: Literal["bilinear", "bicubic"] = "bicubic"
) -> np.ndarray:
    """One image as a trained model sees it: the same steps as for the images it was trained on.

    Returns:
        (image_size, image_size, channels) uint8, of its own memory.

    Raises:
        DataError: if the file cannot be read as an image.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return _pixels(image, Decoding(channels, image_size, interpolation)).copy()
    except decode_errors() as error:
        raise DataError(f"{path}: cannot be read as an image ({cause_of(error)})") from error


def decode_errors() -> tuple[type[Exception], ...]:
    """What PIL raises on damaged files: OSError mostly, but its plugins let others through."""
    import struct

    from PIL import Image

    return OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error, Image.DecompressionBombError


def cause_of(error: Exception) -> str:
    """Why an image cannot be read, in words."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "not an image, or damaged from its first bytes on"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def _survey(
    one: Callable[[int], np.ndarray | Problem], count: int, *, channels: int, progress: Progress | None
) -> Decoded:
    """Runs `one` on each row and sums up what it returns."""
    digests = np.zeros((count, DIGEST_SIZE), np.uint8)
    sums = np.zeros((count, 2, channels), np.uint64)

    def work(chunk: range) -> tuple[int, dict[int, Problem]]:
        problems = {}
        for row in chunk:
            found = one(row)
            if isinstance(found, Problem):
                problems[row] = found
                continue
            digest = hashlib.blake2b(np.ascontiguousarray(found).data, digest_size=DIGEST_SIZE).digest()
            digests[row] = np.frombuffer(digest, np.uint8)
            planes = np.ascontiguousarray(found.reshape(-1, channels).T)  # sums along rows are ten times as fast
            sums[row, 0] = planes.sum(axis=1, dtype=np.uint64)
            sums[row, 1] = np.square(planes, dtype=np.uint16).sum(axis=1, dtype=np.uint64)
        return len(chunk), problems

    problems: dict[int, Problem] = {}
    done = 0
    for finished, found in _in_threads(work, count):
        done += finished
        problems |= found
        if progress is not None:
            progress(done, count)
    return Decoded(digests, sums, problems)


def _in_threads(work: Callable[[range], Result], count: int) -> Iterator[Result]:
    """Results of `work` on consecutive ranges that cover 0 to count, in order."""
    chunks = (range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK))
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # threads: PIL releases the GIL while it decodes and resizes
        yield from pool.map(work, chunks)


def _read_headers(images: EncodedImages, chunk: range) -> list[_Header]:
    headers = []
    for row in chunk:
        try:
            with images.open(row) as image:
                width, height = image.size
                if image.getexif().get(_ORIENTATION, 1) >= 5:
                    width, height = height, width
                headers.append(_Header(size=(width, height), gray=image.mode in _GRAY_MODES))
        except decode_errors():
            continue  # decoding tries it again and reports it with the others
    return headers


def _pixels(image: Image, decoding: Decoding) -> np.ndarray:
    """Displayed pixels of an image, (H, W, C) uint8."""
    from PIL import Image as PILImage
    from PIL import ImageOps

    side = decoding.image_size
    if side is not None:
        image.draft(None, (_DRAFT_GAP * side, _DRAFT_GAP * side))  # None keeps the mode
    image = _to_channels(ImageOps.exif_transpose(image), decoding.channels)
    if side is not None and image.size != (side, side):
        width, height = image.size
        scale = side / min(width, height)
        size = (max(side, round(width * scale)), max(side, round(height * scale)))
        if size != image.size:
            image = image.resize(size, PILImage.Resampling[decoding.interpolation.upper()])
        left, top = (size[0] - side) // 2, (size[1] - side) // 2
        image = image.crop((left, top, left + side, top + side))
    pixels = np.asarray(image)
    return pixels[:, :, None] if decoding.channels == 1 else pixels


def _to_channels(image: Image, channels: int) -> Image:
    """L or RGB; transparency is dropped, and 16 bits are scaled to 8 (convert() alone would clip them)."""
    from PIL import Image as PILImage

    if image.mode == "F":
        raise ValueError("floating-point pixels; convert it to an 8- or 16-bit image")
    if image.mode.startswith("I"):
        image = PILImage.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) // 257).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # PIL warns when such a palette goes to RGB directly
    return image.convert("L" if channels == 1 else "RGB")


def _reason(images: EncodedImages, row: int) -> str | None:
    try:
        with images.open(row) as image:
            image.load()
    except decode_errors() as error:
        return cause_of(error)
    return None
