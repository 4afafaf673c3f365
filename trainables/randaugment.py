"""RandAugment on batches: images of a batch that drew the same operation and sign are transformed together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

NUM_MAGNITUDES = 31
NUM_OPERATIONS = 14
# By operation, in the order of `_operations`: is its sign drawn, does it only move pixels, does it only map values;
# the others look at several pixels or channels. Doing the first two kinds by table makes small batches 3 times faster.
_SIGNED = np.isin(np.arange(NUM_OPERATIONS), range(1, 10))
_MOVES = np.isin(np.arange(NUM_OPERATIONS), range(1, 6))
_MAPS = np.isin(np.arange(NUM_OPERATIONS), (6, 10, 11))
_OTHER = np.isin(np.arange(NUM_OPERATIONS), (7, 8, 9, 12, 13))

# An operation of (images, signed magnitude); images are (B, C, H, W) uint8.
_Apply = Callable[[Tensor, float], Tensor]


def rand_augment(images: Tensor, draws: np.ndarray, *, magnitude: int) -> Tensor:
    """Transforms each image by the operations it drew, one after the other.

    The magnitude is fixed, so an operation and a sign say all about a transform, and no image depends on the others
    of its batch. On gray images Color is the identity, as in torchvision.

    Args:
        images: (B, C, H, W) uint8, C of 1 or 3; may be overwritten.
        draws: (B, num_ops, 2) float32 in [0, 1): which operation, and which sign.
        magnitude: M, in 0 to 30.

    Returns:
        (B, C, H, W) uint8.

    Source: arXiv:1909.13719, with torchvision's RandAugment's 14 operations and 31 magnitude bins, nearest
        interpolation and black fill.
    """
    operations = _operations(images.shape[-2], images.shape[-1], magnitude)
    choices = np.minimum((draws[:, :, 0] * len(operations)).astype(np.int64), len(operations) - 1)
    negative = draws[:, :, 1] < 0.5
    tables = _tables(images.shape[-2], images.shape[-1], magnitude, images.device)
    for step in range(draws.shape[1]):
        chosen = choices[:, step]
        transforms = 2 * chosen + (_SIGNED[chosen] & negative[:, step])
        _move_pixels(images, transforms, tables)
        _map_values(images, transforms, tables)
        for transform in np.unique(transforms[_OTHER[chosen]]).tolist():
            apply, strength, _ = operations[transform // 2]
            rows = torch.from_numpy(np.flatnonzero(transforms == transform)).to(images.device)
            images[rows] = apply(images[rows], -strength if transform % 2 else strength)
    return images


@dataclass(frozen=True)
class _Tables:
    """Transforms that only move pixels, or only map values, as tables with a row for each operation and sign.

    Attributes:
        sources: (28, H * W) int64; 1 + the place that each pixel comes from, 0 for black.
        values: (28 * 256,) uint8; what each value becomes.
    """

    sources: Tensor
    values: Tensor


@lru_cache(maxsize=16)
def _tables(height: int, width: int, magnitude: int, device: torch.device) -> _Tables:
    """Read off torchvision's operations themselves, by applying them to an image of places and to one of values."""
    places = torch.arange(1, height * width + 1, dtype=torch.float64).view(1, 1, height, width)
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    sources = torch.zeros(2 * NUM_OPERATIONS, height * width, dtype=torch.int64)
    values = torch.zeros(2 * NUM_OPERATIONS, 256, dtype=torch.uint8)
    for number, (apply, strength, signed) in enumerate(_operations(height, width, magnitude)):
        for negative in (False, True) if signed else (False,):
            row, amount = 2 * number + negative, -strength if negative else strength
            if _MOVES[number]:
                sources[row] = apply(places, amount).round().to(torch.int64).view(-1)
            elif _MAPS[number]:
                values[row] = apply(ramp, amount).reshape(-1)
    return _Tables(sources.to(device), values.view(-1).to(device))


def _move_pixels(images: Tensor, transforms: np.ndarray, tables: _Tables) -> None:
    found = np.flatnonzero(_MOVES[transforms // 2])
    rows, chosen = (torch.from_numpy(each).to(images.device) for each in (found, transforms[found]))
    pixels = F.pad(images[rows].flatten(2), (1, 0))  # place 0 is black
    index = tables.sources[chosen][:, None, :].expand(-1, images.shape[1], -1)
    images[rows] = pixels.gather(2, index).view(-1, *images.shape[1:])


def _map_values(images: Tensor, transforms: np.ndarray, tables: _Tables) -> None:
    found = np.flatnonzero(_MAPS[transforms // 2])
    rows, chosen = (torch.from_numpy(each).to(images.device) for each in (found, transforms[found]))
    index = images[rows].to(torch.int64) + 256 * chosen[:, None, None, None]
    images[rows] = tables.values[index]


def _operations(height: int, width: int, magnitude: int) -> list[tuple[_Apply, float, bool]]:
    """(function, strength, whether the sign is drawn) of each operation, in torchvision's order."""

    def strength(at_0: float, at_30: float) -> float:
        # torchvision's own float32 arithmetic: another last bit would give other pixels.
        return float(torch.linspace(at_0, at_30, NUM_MAGNITUDES)[magnitude])

    return [
        (_identity, 0.0, False),
        (_shear_x, strength(0.0, 0.3), True),
        (_shear_y, strength(0.0, 0.3), True),
        (_translate_x, strength(0.0, 150.0 / 331.0 * width), True),
        (_translate_y, strength(0.0, 150.0 / 331.0 * height), True),
        (_rotate, strength(0.0, 30.0), True),
        (_brightness, strength(0.0, 0.9), True),
        (_color, strength(0.0, 0.9), True),
        (_contrast, strength(0.0, 0.9), True),
        (_sharpness, strength(0.0, 0.9), True),
        (_posterize, float(round(strength(8.0, 4.0))), False),
        (_solarize, 255.0 * strength(1.0, 0.0), False),
        (_auto_contrast, 0.0, False),
        (_equalize, 0.0, False),
    ]


def _affine(images: Tensor, *, translate: list[int], shear: list[float], center: list[float] | None = None) -> Tensor:
    from torchvision.transforms.v2 import functional as tv

    moved: Tensor = tv.affine(images, angle=0.0, translate=translate, scale=1.0, shear=shear, center=center)
    return moved


def _identity(images: Tensor, _: float) -> Tensor:
    return images


def _shear_x(images: Tensor, strength: float) -> Tensor:
    return _affine(images, translate=[0, 0], shear=[math.degrees(math.atan(strength)), 0.0], center=[0, 0])


def _shear_y(images: Tensor, strength: float) -> Tensor:
    return _affine(images, translate=[0, 0], shear=[0.0, math.degrees(math.atan(strength))], center=[0, 0])


def _translate_x(images: Tensor, strength: float) -> Tensor:
    return _affine(images, translate=[int(strength), 0], shear=[0.0, 0.0])


def _translate_y(images: Tensor, strength: float) -> Tensor:
    return _affine(images, translate=[0, int(strength)], shear=[0.0, 0.0])


def _rotate(images: Tensor, strength: float) -> Tensor:
    from torchvision.transforms.v2 import functional as tv

    rotated: Tensor = tv.rotate(images, angle=strength)
    return rotated


def _brightness(images: Tensor, strength: float) -> Tensor:
    from torchvision.transforms.v2 import functional as tv

    adjusted: Tensor = tv.adjust_brightness(images, brightness_factor=1.0 + strength)
    return adjusted


def _color(images: Tensor, strength: float) -> Tensor:
    from torchvision.transforms.v2 import functional as tv

    adjusted: Tensor = tv.adjust_saturation(images, saturation_factor=1.0 + strength)
    return adjusted


def _contrast(images: Tensor, strength: float) -> Tensor:
    from torchvision.transforms.v2 import functional as tv

    adjusted: Tensor = tv.adjust_contrast(images, contrast_factor=1.0 + strength)
    return adjusted


def _sharpness(images: Tensor, strength: float) -> Tensor:
    from torchvision.transforms.v2 import functional as tv

    adjusted: Tensor = tv.adjust_sharpness(images, sharpness_factor=1.0 + strength)
    return adjusted


def _posterize(images: Tensor, strength: float) -> Tensor:
    from torchvision.transforms.v2 import functional as tv

    posterized: Tensor = tv.posterize(images, bits=int(strength))
    return posterized


def _solarize(images: Tensor, strength: float) -> Tensor:
    from torchvision.transforms.v2 import functional as tv

    solarized: Tensor = tv.solarize(images, threshold=strength)
    return solarized


def _auto_contrast(images: Tensor, _: float) -> Tensor:
    from torchvision.transforms.v2 import functional as tv

    stretched: Tensor = tv.autocontrast(images)
    return stretched


def _equalize(images: Tensor, _: float) -> Tensor:
    from torchvision.transforms.v2 import functional as tv

    equalized: Tensor = tv.equalize(images)
    return equalized
