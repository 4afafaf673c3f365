"""Random erasing: a rectangle of an image replaced by noise."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trainables.geometry import BOX_DRAWS, random_sizes, whole_numbers
from trainables.pieces import windows, with_rows

AREA = (0.02, 0.33)
RATIO = (0.3, 3.3)
# Whether, how large, where, and which noise.
ERASING_DRAWS = 1 + BOX_DRAWS + 1
# Each image's noise is a window of one strip of random pixels, so that no noise is drawn for it.
_NUM_WINDOWS = 2**13


def erase(images: Tensor, draws: np.ndarray, *, probability: float, noise: Tensor) -> Tensor:
    """Images with a rectangle of random pixels, each with the given probability.

    Args:
        images: (B, C, H, W) uint8.
        draws: (B, ERASING_DRAWS) float32 in [0, 1).
        probability: of an image to be erased in part.
        noise: of `erasing_noise`, for images of this size.

    Returns:
        (B, C, H, W) uint8, a new tensor, channels-last in memory.

    Source: arXiv:1708.04896, with its random values (RE-R); area, ratio and attempts as in torchvision's RandomErasing.
    """
    height, width = images.shape[-2:]
    hit = np.flatnonzero(draws[:, 0] < probability)
    boxes = erasing_boxes(draws[hit, 1:-1], height=height, width=width)
    starts = whole_numbers(draws[hit, -1], _NUM_WINDOWS - 1)
    # On a CPU a box at a time costs least, since nothing outside of it is touched; a GPU would be called for each.
    covered = _one_by_one if images.device.type == "cpu" else _all_at_once
    return covered(images, hit, boxes, noise=noise, starts=starts)


def _one_by_one(images: Tensor, hit: np.ndarray, boxes: np.ndarray, *, noise: Tensor, starts: np.ndarray) -> Tensor:
    _, channels, height, width = images.shape
    pixels = np.array(images.permute(0, 2, 3, 1).numpy(), order="C")
    strip = noise.numpy()
    step = strip.strides[0]
    views = np.lib.stride_tricks.as_strided(
        strip, (len(strip) - height * width + 1, height, width, channels), (step, width * step, *strip.strides)
    )
    for number, start, (top, left, tall, wide) in zip(hit.tolist(), starts.tolist(), boxes.tolist(), strict=True):
        rows, columns = slice(top, top + tall), slice(left, left + wide)
        pixels[number, rows, columns] = views[start, rows, columns]
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def _all_at_once(images: Tensor, hit: np.ndarray, boxes: np.ndarray, *, noise: Tensor, starts: np.ndarray) -> Tensor:
    _, channels, height, width = images.shape
    noisy = windows(noise, starts, height=height, stride=width, width=width)
    inside = torch.from_numpy(_inside(boxes, height, width, channels)).to(images.device, non_blocking=True)
    pixels = images.permute(0, 2, 3, 1)
    whole = pixels.index_select(0, torch.from_numpy(hit).to(images.device, non_blocking=True))
    # The noise inside and the image outside, as operations on bits: they vectorise, and `torch.where` does not.
    return with_rows(pixels, hit, whole ^ ((whole ^ noisy) & inside)).permute(0, 3, 1, 2)


def erasing_boxes(draws: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """Random rectangles: area uniform in 2 to 33 % of the image, aspect ratio log-uniform in [0.3, 3.3].

    Args:
        draws: (B, BOX_DRAWS) float32 in [0, 1).
        height: of the images in pixels.
        width: of the images in pixels.

    Returns:
        (B, 4) int64: top, left, height, width; height and width 0 where no attempt fits.
    """
    sizes, fits = random_sizes(draws, height, width, area=AREA, ratio=RATIO, largest=(height - 1, width - 1))
    sizes = np.where(fits[:, None], sizes, 0)
    top = whole_numbers(draws[:, -2], height - sizes[:, 0])
    left = whole_numbers(draws[:, -1], width - sizes[:, 1])
    return np.stack([top, left, sizes[:, 0], sizes[:, 1]], axis=1)


def erasing_noise(generator: np.random.Generator, shape: torch.Size) -> Tensor:
    """A strip of random pixels, (N, C) uint8, for images of shape (C, H, W)."""
    channels, height, width = shape
    return torch.from_numpy(generator.integers(0, 256, (_NUM_WINDOWS + height * width, channels), dtype=np.uint8))


def _inside(boxes: np.ndarray, height: int, width: int, channels: int) -> np.ndarray:
    """(B, H, W, C) uint8: all bits in the pixels of each box, none elsewhere."""
    ys, xs = np.arange(height), np.arange(width).repeat(channels)
    top, left, box_height, box_width = (column[:, None] for column in boxes.T)
    rows = np.negative(((ys >= top) & (ys < top + box_height)).view(np.uint8))  # 1 becomes 255
    columns = np.negative(((xs >= left) & (xs < left + box_width)).view(np.uint8))
    inside: np.ndarray = rows[:, :, None] & columns[:, None, :]
    return inside.reshape(-1, height, width, channels)
