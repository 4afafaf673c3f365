"""How does an image file become pixels? Sizes, channels, orientation, resizing; many files at once, in threads."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from trainables.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

Result = TypeVar("Result")
Progress = Callable[[int, int], None]  # images done, images in all

MAX_LISTED = 20
_CHUNK = 64
_GRAY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
_ORIENTATION = 0x0112  # Exif tag; values from 5 on swap width and height


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the images, and where."""

    where: str
    what: str


@dataclass(frozen=True)
class _Header:
    """What the first bytes of an image file say: (width, height) in pixels as displayed, and its colours."""

    size: tuple[int, int]
    gray: bool


def raise_problems(where: str, problems: Sequence[Problem], *, remedy: str) -> None:
    """Raises one DataError that lists up to 20 problems and counts the rest; does nothing without problems."""
    if not problems:
        return
    lines = [f"  {problem.where}: {problem.what}" for problem in problems[:MAX_LISTED]]
    if len(problems) > MAX_LISTED:
        lines.append(f"  and {len(problems) - MAX_LISTED} more")
    raise DataError(f"{where}: {len(problems)} problem(s) found; {remedy}\n" + "\n".join(lines))


def inspect_files(paths: Sequence[Path], *, root: Path, image_size: int | None) -> tuple[int, int, int]:
    """The shape (H, W, C) that all images get; only the files' headers are read, and unreadable ones are passed over.

    Args:
        paths: image files.
        root: folder that messages name paths relative to.
        image_size: side that images are brought to, or None to keep their common size.

    Raises:
        DataError: if no image can be read, or no image_size is given and sizes differ or are not square.
    """
    headers: list[_Header] = []
    for found in _in_threads(lambda chunk: _read_headers(paths[chunk.start : chunk.stop]), len(paths)):
        headers += found
    if not headers:
        # Decoding would fail on each of them: say why, as for any unreadable file.
        problems = [Problem(_relative(path, root), reason) for path in paths if (reason := _reason(path))]
        raise_problems(str(root), problems, remedy="no image can be read; replace or delete these files")
    channels = 1 if all(header.gray for header in headers) else 3
    if image_size is not None:
        return image_size, image_size, channels
    sizes = Counter(header.size for header in headers)
    shortest = min(min(size) for size in sizes)
    if len(sizes) > 1:
        common = ", ".join(f"{w}x{h} ({count} images)" for (w, h), count in sizes.most_common(5))
        raise DataError(
            f"{root}: images must have one size, found {len(sizes)}: {common}; "
            f"set task.data.image_size, for instance {max(4, min(shortest, 224))}"
        )
    width, height = next(iter(sizes))
    if width != height:
        raise DataError(
            f"{root}: images must be square, found {width}x{height}; "
            f"set task.data.image_size, for instance {max(4, min(shortest, 224))}, to have them cropped"
        )
    return height, width, channels


def decode_files(
    paths: Sequence[Path],
    out: np.ndarray,
    *,
    root: Path,
    image_size: int | None,
    progress: Progress | None = None,
) -> None:
    """Decodes every file into its row of `out`.

    Args:
        paths: image files.
        out: (N, H, W, C) uint8, written in place; C is 1 for gray, 3 for RGB.
        root: folder that messages name paths relative to.
        image_size: see `inspect_files`.
        progress: called after each group of images.

    Raises:
        DataError: listing all unreadable files and why, once all have been tried.
    """

    def decode(chunk: range) -> tuple[int, list[Problem]]:
        from PIL import Image

        problems = []
        for row in chunk:
            try:
                with Image.open(paths[row]) as image:
                    out[row] = _pixels(image, channels=out.shape[-1], image_size=image_size)
            except _decode_errors() as error:
                problems.append(Problem(_relative(paths[row], root), _cause(error)))
        return len(chunk), problems

    problems = _run(decode, len(paths), progress)
    raise_problems(str(root), problems, remedy="some images cannot be read; replace or delete them, then start again")


def decode_image(path: Path, *, image_size: int, channels: int) -> np.ndarray:
    """One image as a trained model sees it: the same steps as for the images it was trained on.

    Returns:
        (image_size, image_size, channels) uint8, of its own memory.

    Raises:
        DataError: if the file cannot be read as an image.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return _pixels(image, channels=channels, image_size=image_size).copy()
    except _decode_errors() as error:
        raise DataError(f"{path}: cannot be read as an image ({_cause(error)})") from error


def resize_arrays(images: np.ndarray, out: np.ndarray, *, progress: Progress | None = None) -> None:
    """Brings decoded images to the size of `out`; a plain copy where they have it.

    Args:
        images: (N, H, W, C) uint8, C of 1 or 3.
        out: (N, S, S, C) uint8, written in place.
    """
    if images.shape == out.shape:
        out[:] = images
        return

    def resize(chunk: range) -> tuple[int, list[Problem]]:
        from PIL import Image

        for row in chunk:
            picture = Image.fromarray(images[row, :, :, 0] if images.shape[-1] == 1 else images[row])
            out[row] = _pixels(picture, channels=out.shape[-1], image_size=out.shape[1])
        return len(chunk), []

    _run(resize, len(images), progress)


def _run(work: Callable[[range], tuple[int, list[Problem]]], count: int, progress: Progress | None) -> list[Problem]:
    problems: list[Problem] = []
    done = 0
    for finished, found in _in_threads(work, count):
        done += finished
        problems += found
        if progress is not None:
            progress(done, count)
    return problems


def _in_threads(work: Callable[[range], Result], count: int) -> Iterator[Result]:
    """Results of `work` on consecutive ranges that cover 0 to count, in order."""
    chunks = (range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK))
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # threads: PIL releases the GIL while it decodes and resizes
        yield from pool.map(work, chunks)


def _read_headers(paths: Sequence[Path]) -> list[_Header]:
    from PIL import Image

    headers = []
    for path in paths:
        try:
            with Image.open(path) as image:
                width, height = image.size
                if image.getexif().get(_ORIENTATION, 1) >= 5:
                    width, height = height, width
                headers.append(_Header(size=(width, height), gray=image.mode in _GRAY_MODES))
        except _decode_errors():
            continue  # decode_files tries it again and reports it with the others
    return headers


def _pixels(image: Image, *, channels: int, image_size: int | None) -> np.ndarray:
    """Displayed pixels of an image, (H, W, C) uint8."""
    from PIL import Image as PILImage
    from PIL import ImageOps

    image = _to_channels(ImageOps.exif_transpose(image), channels)
    if image_size is not None and image.size != (image_size, image_size):
        width, height = image.size
        scale = image_size / min(width, height)
        size = (max(image_size, round(width * scale)), max(image_size, round(height * scale)))
        if size != image.size:
            image = image.resize(size, PILImage.Resampling.BICUBIC)
        left, top = (size[0] - image_size) // 2, (size[1] - image_size) // 2
        image = image.crop((left, top, left + image_size, top + image_size))
    pixels = np.asarray(image)
    return pixels[:, :, None] if channels == 1 else pixels


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


def _reason(path: Path) -> str | None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
    except _decode_errors() as error:
        return _cause(error)
    return None


def _decode_errors() -> tuple[type[Exception], ...]:
    """What PIL raises on damaged files: OSError mostly, but its plugins let others through."""
    import struct

    from PIL import Image

    return OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error, Image.DecompressionBombError


def _cause(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "not an image, or damaged from its first bytes on"
    return str(error) or type(error).__name__


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
