"""Mixup and CutMix: each image of a batch with a partner, and its target with the partner's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.config import TrialConfig
from trainables.layouts import opencv
from trainables.seeds import Stream, stream_seed


@dataclass(frozen=True)
class Mix:
    """How a whole batch is mixed.

    Attributes:
        lam: share of the image itself, in [0, 1]; the partner has the rest.
        box: top, left, bottom, right of what CutMix takes from the partner, the last two exclusive; None for Mixup.
    """

    lam: float
    box: tuple[int, int, int, int] | None = None


def draw_mix(config: TrialConfig, *, epoch: int, step: int, height: int, width: int) -> Mix | None:
    """How the batch of one step is mixed, the same on every worker; None where it is not.

    Args:
        config: a batch is mixed with probability `mix_prob`, and by each of Mixup and CutMix half of the time where
            both alphas are above 0.
        epoch: counted from 0.
        step: within the epoch, counted from 0.
        height: of the images in pixels.
        width: of the images in pixels.

    Source: Mixup, arXiv:1710.09412; CutMix, arXiv:1905.04899, its lambda after the box is cut at the border.
    """
    alphas = (config.mixup_alpha, config.cutmix_alpha)
    if max(alphas) == 0:
        return None
    rng = np.random.default_rng(stream_seed(config.seed, Stream.MIXING, epoch, step))
    missed, second, vertical, horizontal = rng.random(4).tolist()
    if missed >= config.mix_prob:
        return None
    cuts = second < 0.5 if min(alphas) > 0 else config.cutmix_alpha > 0
    alpha = alphas[1] if cuts else alphas[0]
    lam = float(rng.beta(alpha, alpha))
    return _cut_mix(lam, vertical, horizontal, height=height, width=width) if cuts else Mix(lam)


def mix_images(images: Tensor, partners: Tensor, mix: Mix) -> Tensor:
    """Each image mixed with its partner.

    Args:
        images: (B, C, H, W), uint8 or float32 pixel values.
        partners: of the same shape and type.
        mix: of this batch.

    Returns:
        (B, C, H, W), a new tensor with the memory layout of the images. Mixup: float32, not rounded, so that
        normalising afterwards is the same as mixing normalised images. CutMix: the type given.
    """
    if mix.box is None:
        return _weighted_sum(images, partners, mix.lam)
    top, left, bottom, right = mix.box
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
    return mixed


def mix_targets(targets: Tensor, partners: Tensor, mix: Mix, *, num_classes: int) -> Tensor:
    """Soft targets of a mixed batch.

    Args:
        targets: (B,) int64 classes, or (B, num_classes) probabilities, or 0 and 1 for several labels an image.
        partners: those of the partners, in the same form.
        mix: of this batch.
        num_classes: width of the result.

    Returns:
        (B, num_classes) float32; rows sum to 1 where those given do.
    """
    return _dense(targets, num_classes) * mix.lam + _dense(partners, num_classes) * (1 - mix.lam)


def _weighted_sum(images: Tensor, partners: Tensor, lam: float) -> Tensor:
    if images.device.type != "cpu" or images.dtype is not torch.uint8:
        return images.to(torch.float32, copy=True).lerp_(partners.to(torch.float32), 1 - lam)
    # torch would go through the memory three times, and OpenCV does it once.
    order = torch.channels_last if images.stride(1) == 1 < images.shape[1] else torch.contiguous_format
    mixed = torch.empty(images.shape, dtype=torch.float32, memory_format=order)
    ours, theirs, sums = (_rows(each.contiguous(memory_format=order)) for each in (images, partners, mixed))
    cv2 = opencv()
    cv2.addWeighted(ours, lam, theirs, 1 - lam, 0, dst=sums, dtype=cv2.CV_32F)
    return mixed


def _rows(images: Tensor) -> np.ndarray:
    """(B, C * H * W), in the order in which the values lie in memory."""
    pixels = images if images.is_contiguous() else images.permute(0, 2, 3, 1)
    rows: np.ndarray = pixels.reshape(len(images), -1).numpy()
    return rows


def _cut_mix(lam: float, vertical: float, horizontal: float, *, height: int, width: int) -> Mix:
    half = 0.5 * math.sqrt(1 - lam)
    # The middle is uniform over the pixels; what sticks out is cut off, and lambda is what is left of the image.
    y, x = int(vertical * height), int(horizontal * width)
    half_height, half_width = int(half * height), int(half * width)
    top, bottom = max(y - half_height, 0), min(y + half_height, height)
    left, right = max(x - half_width, 0), min(x + half_width, width)
    share = (bottom - top) * (right - left) / (height * width)
    return Mix(1 - share, (top, left, bottom, right))


def _dense(targets: Tensor, num_classes: int) -> Tensor:
    return (F.one_hot(targets, num_classes) if targets.ndim == 1 else targets).to(torch.float32)
