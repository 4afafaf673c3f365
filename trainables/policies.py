"""AutoAugment, TrivialAugment and AugMix on batches of images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from trainables.geometry import to_uint8, whole_numbers
from trainables.operations import Operations, evenly_spaced, strengths, with_signs

# AutoAugment's policy for CIFAR-10 (32 pixels) is taken up to this side, that for ImageNet (224) above: the middle
# of the two on a logarithmic scale is 85, and data sets of 64 pixels are CIFAR's kin.
LARGEST_CIFAR_SIDE = 64
AUTO_AUGMENT_DRAWS = 5
TRIVIAL_AUGMENT_DRAWS = 3
_AUTO_BINS = 10
_TRIVIAL_BINS = 31
_AUG_MIX_BINS = 10
_AUG_MIX_DEPTH = 3
_CHAIN_DRAWS = 1 + 3 * _AUG_MIX_DEPTH


def auto_augment(images: Tensor, draws: np.ndarray) -> Tensor:
    """Each image by one of the 25 sub-policies: two operations, each with its probability and magnitude.

    Args:
        images: (B, C, H, W) uint8, C of 1 or 3, contiguous.
        draws: (B, 5) float32 in [0, 1): which sub-policy; for each of its operations whether, and which sign.

    Returns:
        (B, C, H, W) uint8, contiguous.

    Source: arXiv:1805.09501; the policies that torchvision's AutoAugment has for CIFAR-10, for sides up to 64 pixels,
        and for ImageNet, for larger ones; nearest interpolation and black fill.
    """
    height, width = images.shape[-2:]
    policy = _auto_policy(height, width, images.device)
    taken = whole_numbers(draws[:, 0], len(policy.chosen) - 1)
    for step in (0, 1):
        happens = draws[:, 1 + 2 * step] < policy.probabilities[taken, step]
        chosen = np.where(happens, policy.chosen[taken, step], policy.operations.names.index("Identity"))
        negative = draws[:, 2 + 2 * step] < 0.5
        images = policy.operations(images, chosen, bins=policy.bins[taken, step], negative=negative)
    return images


def trivial_augment(images: Tensor, draws: np.ndarray) -> Tensor:
    """Each image by one operation of a random strength.

    Args:
        images: (B, C, H, W) uint8, C of 1 or 3, contiguous.
        draws: (B, 3) float32 in [0, 1): which operation, how strong, which sign.

    Returns:
        (B, C, H, W) uint8, contiguous.

    Source: TrivialAugment (Wide), arXiv:2103.10158, with torchvision's 31 bins, nearest interpolation and black fill.
        Images below 32 pixels are moved by their side at most, not by up to 32 pixels.
    """
    operations = _trivial_operations(images.shape[-2], images.shape[-1], images.device)
    chosen = whole_numbers(draws[:, 0], len(operations.names) - 1)
    bins = whole_numbers(draws[:, 1], _TRIVIAL_BINS - 1)
    return operations(images, chosen, bins=bins, negative=draws[:, 2] < 0.5)


def aug_mix_draws(width: int) -> int:
    """How many numbers AugMix takes for an image."""
    return width * (_CHAIN_DRAWS + 1) + 1


def aug_mix(images: Tensor, draws: np.ndarray, *, severity: int, width: int) -> Tensor:
    """Each image mixed with versions of itself, each made by a chain of one to three operations.

    Args:
        images: (B, C, H, W) uint8, C of 1 or 3, contiguous.
        draws: (B, aug_mix_draws(width)) float32 in [0, 1): for each chain its length and for each operation which,
            how strong and which sign; the weights of the chains; the share of the image as it is.
        severity: how many of the 10 strengths are in use, from the weakest.
        width: chains.

    Returns:
        (B, C, H, W) uint8, contiguous, rounded.

    Source: arXiv:1912.02781 with alpha 1: weights from Dirichlet(1, ..., 1), the share uniform, which is Beta(1, 1).
        Operations and bilinear interpolation as in torchvision's AugMix.
    """
    operations = _aug_mix_operations(images.shape[-2], images.shape[-1], severity, images.device)
    identity = operations.names.index("Identity")
    chains = draws[:, : width * _CHAIN_DRAWS].reshape(-1, _CHAIN_DRAWS)
    lengths = 1 + whole_numbers(chains[:, 0], _AUG_MIX_DEPTH - 1)
    chained = images.repeat_interleave(width, dim=0)
    for step in range(_AUG_MIX_DEPTH):
        which, strength, sign = chains[:, 1 + 3 * step : 4 + 3 * step].T
        chosen = np.where(step < lengths, whole_numbers(which, identity - 1), identity)
        chained = operations(chained, chosen, bins=whole_numbers(strength, severity - 1), negative=sign < 0.5)
    share = torch.from_numpy(draws[:, -1]).to(images.device, non_blocking=True)[:, None, None, None]
    weights = _dirichlet(draws[:, width * _CHAIN_DRAWS : -1]) * (1 - draws[:, -1:])
    mixed = images.mul(share)
    for chain, weight in enumerate(torch.from_numpy(weights).to(images.device, non_blocking=True).unbind(1)):
        mixed.add_(chained[chain::width].mul(weight[:, None, None, None]))
    return to_uint8(mixed.round_())


def _dirichlet(draws: np.ndarray) -> np.ndarray:
    """(B, K) float32 from Dirichlet(1, ..., 1): exponential variables over their sum."""
    exponential = np.maximum(-np.log1p(-draws), np.finfo(np.float32).tiny)
    weights: np.ndarray = exponential / exponential.sum(axis=1, keepdims=True)
    return weights


@dataclass(frozen=True)
class _AutoPolicy:
    """The sub-policies as tables with a row for each and a column for each of its two operations.

    Attributes:
        chosen: (25, 2) int64, numbers of operations.
        probabilities: (25, 2) float64.
        bins: (25, 2) int64, magnitudes.
    """

    operations: Operations
    chosen: np.ndarray
    probabilities: np.ndarray
    bins: np.ndarray


@lru_cache(maxsize=16)
def _auto_policy(height: int, width: int, device: torch.device) -> _AutoPolicy:
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    small = max(height, width) <= LARGEST_CIFAR_SIDE
    pairs = AutoAugment(AutoAugmentPolicy.CIFAR10 if small else AutoAugmentPolicy.IMAGENET).policies
    magnitudes = strengths(height=height, width=width, num_bins=_AUTO_BINS) | {"Invert": (0.0,) * _AUTO_BINS}
    operations = Operations(with_signs(magnitudes), height=height, width=width, device=device)
    return _AutoPolicy(
        operations=operations,
        chosen=np.array([[operations.names.index(name) for name, _, _ in pair] for pair in pairs]),
        probabilities=np.array([[probability for _, probability, _ in pair] for pair in pairs]),
        bins=np.array([[bin_number or 0 for _, _, bin_number in pair] for pair in pairs]),
    )


@lru_cache(maxsize=16)
def _trivial_operations(height: int, width: int, device: torch.device) -> Operations:
    evenly = partial(evenly_spaced, 0.0, num_bins=_TRIVIAL_BINS)
    magnitudes = strengths(height=height, width=width, num_bins=_TRIVIAL_BINS) | {
        "TranslateX": evenly(min(32.0, width)),
        "TranslateY": evenly(min(32.0, height)),
        "Rotate": evenly(135.0),
        "Posterize": tuple(float(8 - round(each / ((_TRIVIAL_BINS - 1) / 6))) for each in range(_TRIVIAL_BINS)),
        **{name: evenly(0.99) for name in ("ShearX", "ShearY", "Brightness", "Color", "Contrast", "Sharpness")},
    }
    return Operations(with_signs(magnitudes), height=height, width=width, device=device)


@lru_cache(maxsize=16)
def _aug_mix_operations(height: int, width: int, severity: int, device: torch.device) -> Operations:
    evenly = partial(evenly_spaced, 0.0, num_bins=_AUG_MIX_BINS)
    every = strengths(height=height, width=width, num_bins=_AUG_MIX_BINS) | {
        "TranslateX": evenly(width / 3.0),
        "TranslateY": evenly(height / 3.0),
        "Posterize": tuple(float(round(4 - each / ((_AUG_MIX_BINS - 1) / 4))) for each in range(_AUG_MIX_BINS)),
    }
    del every["Identity"]
    used = {name: values[:severity] for name, values in (every | {"Identity": (0.0,) * _AUG_MIX_BINS}).items()}
    return Operations(with_signs(used), height=height, width=width, device=device, bilinear=True)
