"""Random crops, flips and rotations of whole batches: each image by its own numbers, all in one gather or sampling."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.layouts import to_planes
from trainables.pieces import flipped, windows

# Numbers that a random box takes: area and aspect ratio of each attempt, then where it lies.
BOX_ATTEMPTS = 10
BOX_DRAWS = 2 * BOX_ATTEMPTS + 2
CROP_RATIO = (3 / 4, 4 / 3)
_CACHED_VALUES = 2**17


def crop_and_flip(images: Tensor, draws: np.ndarray, *, padding: float, hflip: float, vflip: float = 0.0) -> Tensor:
    """A crop of the zero-padded image at its own size, mirrored or not.

    Args:
        images: (B, C, H, W) uint8.
        draws: (B, 4) float32 in [0, 1): offset down, offset right, horizontal flip, vertical flip.
        padding: on each side, as a fraction of the side; rounded to pixels.
        hflip: probability of the horizontal flip.
        vflip: probability of the vertical flip.

    Returns:
        (B, C, H, W) uint8, a new tensor, channels-last in memory.

    Source: crop and flip of CIFAR training, arXiv:1512.03385 (section 4.2).
    """
    height, width = images.shape[-2:]
    pad_y, pad_x = round(padding * height), round(padding * width)
    top, left = whole_numbers(draws[:, 0], 2 * pad_y), whole_numbers(draws[:, 1], 2 * pad_x)
    mirrored, upside_down = draws[:, 2] < hflip, draws[:, 3] < vflip
    # The crop of an image, mirrored, is a crop of the mirrored image.
    pixels = flipped(flipped(images, mirrored, dim=3), upside_down, dim=2).permute(0, 2, 3, 1)
    top, left = np.where(upside_down, 2 * pad_y - top, top), np.where(mirrored, 2 * pad_x - left, left)
    padded = F.pad(pixels, (0, 0, pad_x, pad_x, pad_y, pad_y))
    _, padded_height, padded_width, channels = padded.shape
    starts = (np.arange(len(images)) * padded_height + top) * padded_width + left
    taken = windows(padded.reshape(-1, channels), starts, height=height, stride=padded_width, width=width)
    return taken.permute(0, 3, 1, 2)


def resized_crop(
    images: Tensor, boxes: np.ndarray, *, hflip: np.ndarray | None = None, vflip: np.ndarray | None = None
) -> Tensor:
    """A part of each image, brought to full size by bilinear interpolation and mirrored or not.

    A part is never larger than the image, so nothing shrinks and antialiasing would have nothing to do.

    Args:
        images: (B, C, H, W) uint8.
        boxes: (B, 4) int64: top, left, height and width of the part, inside the image.
        hflip: (B,) bool, the images to be mirrored left to right; none by default.
        vflip: (B,) bool, the same upside down.

    Returns:
        (B, C, H, W) uint8, a new tensor.

    Source: torchvision's resized_crop.
    """
    height, width = images.shape[-2:]
    ys = _source_places(boxes[:, 0], boxes[:, 2], height, mirrored=vflip)
    xs = _source_places(boxes[:, 1], boxes[:, 3], width, mirrored=hflip)
    along = np.stack([_normalised(xs, width), np.zeros_like(xs, np.float32)], axis=-1)
    down = np.stack([np.zeros_like(ys, np.float32), _normalised(ys, height)], axis=-1)
    places = (torch.from_numpy(each).to(images.device, non_blocking=True) for each in (along, down))
    return sample(images, _grid(*places))


def resized_crop_boxes(draws: np.ndarray, *, height: int, width: int, scale: float) -> np.ndarray:
    """Random parts of an image: area uniform in [scale, 1] of it, aspect ratio log-uniform in [3/4, 4/3].

    Args:
        draws: (B, BOX_DRAWS) float32 in [0, 1).
        height: of the image in pixels.
        width: of the image in pixels.
        scale: smallest area as a fraction.

    Returns:
        (B, 4) int64: top, left, height, width. The largest central part of an admissible ratio where no attempt fits.

    Source: torchvision's RandomResizedCrop, with its 10 attempts.
    """
    sizes, fits = random_sizes(
        draws, width, height, area=(scale, 1.0), ratio=CROP_RATIO, largest=(width, height)
    )  # torchvision multiplies the width by the root of the ratio
    whole = _largest_part(height, width)
    box_height = np.where(fits, np.maximum(sizes[:, 1], 1), whole[0])
    box_width = np.where(fits, np.maximum(sizes[:, 0], 1), whole[1])
    top = np.where(fits, whole_numbers(draws[:, -2], height - box_height), (height - box_height) // 2)
    left = np.where(fits, whole_numbers(draws[:, -1], width - box_width), (width - box_width) // 2)
    return np.stack([top, left, box_height, box_width], axis=1)


def random_sizes(
    draws: np.ndarray,
    first: int,
    second: int,
    *,
    area: tuple[float, float],
    ratio: tuple[float, float],
    largest: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Random side lengths of a box: of 10 attempts the first that fits.

    Args:
        draws: (B, BOX_DRAWS) float32 in [0, 1).
        first: side of the image along the box's first side.
        second: the image's other side.
        area: range of the box's area as a fraction of the image's; uniform.
        ratio: range of the first side by the second; log-uniform.
        largest: greatest sides that fit.

    Returns:
        (B, 2) int64 sides, at least 1 unless the area rounds to nothing, and (B,) bool whether any attempt fitted.

    Source: torchvision's RandomResizedCrop and RandomErasing.
    """
    areas = (area[0] + (area[1] - area[0]) * draws[:, :BOX_ATTEMPTS].astype(np.float64)) * (first * second)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    roots = np.exp(0.5 * (low + (high - low) * draws[:, BOX_ATTEMPTS : 2 * BOX_ATTEMPTS].astype(np.float64)))
    sides = np.sqrt(areas)
    sizes = np.stack([np.rint(sides * roots), np.rint(sides / roots)], axis=-1).astype(np.int64)
    fits = (sizes[..., 0] <= largest[0]) & (sizes[..., 1] <= largest[1])
    chosen = fits.argmax(axis=1)
    return sizes[np.arange(len(draws)), chosen], np.asarray(fits.any(axis=1))


def rotate(images: Tensor, degrees: np.ndarray) -> Tensor:
    """Each image turned about its middle, counter-clockwise, by bilinear interpolation; zeros come in at the corners.

    Args:
        images: (B, C, H, W) uint8.
        degrees: (B,) float.

    Returns:
        (B, C, H, W) uint8, a new tensor.

    Source: torchvision's rotate.
    """
    angles = np.radians(degrees.astype(np.float64))
    cos, sin = np.cos(angles), np.sin(angles)
    zero = np.zeros_like(cos)
    return affine(images, np.stack([cos, -sin, zero, sin, cos, zero], axis=1).reshape(-1, 2, 3))


def affine(images: Tensor, matrices: np.ndarray) -> Tensor:
    """Each image moved by an affine map, by bilinear interpolation; zeros come in from outside.

    Args:
        images: (B, C, H, W) uint8.
        matrices: (B, 2, 3) float; from a place in the result, as (x, y, 1) in pixels from the middle, to where its
            value comes from.

    Returns:
        (B, C, H, W) uint8, a new tensor.

    Source: torchvision's affine.
    """
    height, width = images.shape[-2:]
    scaled = matrices * (np.array([2 / width, 2 / height])[:, None])
    theta = torch.from_numpy(scaled.astype(np.float32)).to(images.device, non_blocking=True)
    xs = torch.arange(width, device=images.device) - (width - 1) / 2
    ys = torch.arange(height, device=images.device) - (height - 1) / 2
    along = theta[:, None, :, 0] * xs[:, None]
    down = theta[:, None, :, 1] * ys[:, None] + theta[:, None, :, 2]
    return sample(images, _grid(along, down))


def sample(images: Tensor, grid: Tensor) -> Tensor:
    """Images read by bilinear interpolation at the places of a grid, as `F.grid_sample` counts them; zeros outside.

    Args:
        images: (B, C, H, W) uint8.
        grid: (B, H, W, 2) float32.

    Returns:
        (B, C, H, W) uint8, rounded, contiguous.
    """
    out = torch.empty(images.shape, dtype=torch.uint8, device=images.device)
    images = to_planes(images)
    for part in cached_parts(images):
        pixels = images[part].to(torch.float32)
        out[part] = to_uint8(F.grid_sample(pixels, grid[part], align_corners=False).round_())
    return out


def cached_parts(images: Tensor, *, start: int = 0, stop: int | None = None) -> Iterator[slice]:
    """Slices of a batch (B, C, H, W) whose float32 copies stay in a core's cache, which doubles the speed.

    Args:
        images: the batch; on a GPU it is one slice.
        start: first image.
        stop: image to stop before; all by default.
    """
    stop = len(images) if stop is None else stop
    at_once = stop - start if images.is_cuda else max(1, _CACHED_VALUES // images[0].numel())
    for first in range(start, stop, max(1, at_once)):
        yield slice(first, min(first + at_once, stop))


def whole_numbers(draws: np.ndarray, most: int | np.ndarray) -> np.ndarray:
    """Whole numbers from 0 to `most`, each as likely as the others."""
    return np.minimum((draws * (most + 1)).astype(np.int64), most)


def to_uint8(pixels: Tensor) -> Tensor:
    """float32 in [0, 256) to uint8, cut off; by way of int16, which vectorises and is twice as fast."""
    return pixels.to(torch.int16).to(torch.uint8)


def _grid(along: Tensor, down: Tensor) -> Tensor:
    """(B, H, W, 2): the sum of a row (B, W, 2) and a column (B, H, 2).

    10 times as fast on small images as `F.affine_grid`, and as complex numbers 7 times as fast as pair by pair.
    """
    row, column = torch.view_as_complex(along.contiguous()), torch.view_as_complex(down.contiguous())
    return torch.view_as_real(row[:, None] + column[:, :, None])


def _largest_part(height: int, width: int) -> tuple[int, int]:
    low, high = CROP_RATIO
    if width / height < low:
        return round(width / low), width
    if width / height > high:
        return height, round(height * high)
    return height, width


def _source_places(start: np.ndarray, length: np.ndarray, side: int, *, mirrored: np.ndarray | None) -> np.ndarray:
    """(B, side) float64: the pixel that each pixel of the enlarged part is read at, never outside the part."""
    places = (np.arange(side) + 0.5) * (length / side)[:, None] - 0.5
    places = start[:, None] + np.clip(places, 0, (length - 1)[:, None])
    return places if mirrored is None else np.where(mirrored[:, None], places[:, ::-1], places)


def _normalised(places: np.ndarray, side: int) -> np.ndarray:
    """Pixels from 0 as `F.grid_sample` counts them: -1 to 1 from the outer edge of the first to that of the last."""
    result: np.ndarray = ((2 * places + 1) / side - 1).astype(np.float32)
    return result
