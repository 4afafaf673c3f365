"""RandAugment on batches of images."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from trainables.geometry import whole_numbers
from trainables.operations import Operations, strengths, with_signs

NUM_MAGNITUDES = 31


def rand_augment(images: Tensor, draws: np.ndarray, *, magnitude: int) -> Tensor:
    """Transforms each image by the operations it drew, one after the other.

    No image depends on the others of its batch. On gray images Color is the identity, as in torchvision.

    Args:
        images: (B, C, H, W) uint8, C of 1 or 3, contiguous.
        draws: (B, num_ops, 2) float32 in [0, 1): which operation, and which sign.
        magnitude: M, in 0 to 30.

    Returns:
        (B, C, H, W) uint8, contiguous.

    Source: arXiv:1909.13719, with torchvision's RandAugment's 14 operations and 31 magnitude bins, nearest
        interpolation and black fill.
    """
    operations = _operations(images.shape[-2], images.shape[-1], magnitude, images.device)
    chosen = whole_numbers(draws[:, :, 0], len(operations.names) - 1)
    negative = draws[:, :, 1] < 0.5
    bins = np.zeros(len(images), np.int64)
    for step in range(draws.shape[1]):
        images = operations(images, chosen[:, step], bins=bins, negative=negative[:, step])
    return images


@lru_cache(maxsize=16)
def _operations(height: int, width: int, magnitude: int, device: torch.device) -> Operations:
    every = strengths(height=height, width=width, num_bins=NUM_MAGNITUDES)
    one = {name: (values[magnitude],) for name, values in every.items()}
    return Operations(with_signs(one), height=height, width=width, device=device)
