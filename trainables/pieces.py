"""Pixels of whole batches moved in large pieces: a copy of an image or a row costs a fraction of one pixel by pixel."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def flipped(images: Tensor, which: np.ndarray, *, dim: int) -> Tensor:
    """Images of which some are mirrored.

    Args:
        images: (B, C, H, W).
        which: (B,) bool.
        dim: 2 turns them upside down, 3 left to right.

    Returns:
        (B, C, H, W): the given ones where none is mirrored, else new, channels-last in memory.
    """
    if not which.any():
        return images
    numbers = np.flatnonzero(which)
    pixels = images.permute(0, 2, 3, 1)
    chosen = pixels.index_select(0, torch.from_numpy(numbers).to(images.device, non_blocking=True))
    turned = chosen.permute(0, 3, 1, 2).flip(dim).permute(0, 2, 3, 1)
    return with_rows(pixels, numbers, turned).permute(0, 3, 1, 2)


def with_rows(whole: Tensor, numbers: np.ndarray, rows: Tensor) -> Tensor:
    """A copy of a tensor in which some rows are others; by NumPy on a CPU, where `index_copy` goes value by value.

    Args:
        whole: (B, ...).
        numbers: (K,) int64, which rows.
        rows: (K, ...), what stands there instead.

    Returns:
        (B, ...), contiguous.
    """
    if whole.device.type != "cpu":
        return whole.contiguous().index_copy(0, torch.from_numpy(numbers).to(whole.device, non_blocking=True), rows)
    copied = np.array(whole.numpy(), order="C")
    copied[numbers] = rows.numpy()
    return torch.from_numpy(copied)


def windows(pixels: Tensor, starts: np.ndarray, *, height: int, stride: int, width: int) -> Tensor:
    """Rectangles out of one long strip of pixels.

    Args:
        pixels: (N, C).
        starts: (B,) int64, the place of each rectangle's first pixel.
        height: rows of a rectangle.
        stride: from the beginning of a row to that of the next, in pixels.
        width: of a row, in pixels.

    Returns:
        (B, height, width, C).
    """
    channels = pixels.shape[1]
    places = len(pixels) - (height - 1) * stride - width + 1
    # Every place at which a rectangle can start, as a view: what is taken of it is copied row by row.
    views = pixels.contiguous().as_strided((places, height, width * channels), (channels, stride * channels, 1))
    taken = views.index_select(0, torch.from_numpy(starts).to(pixels.device, non_blocking=True))
    return taken.view(len(starts), height, width, channels)
