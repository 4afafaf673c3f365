"""Layers of Keras that torch lacks, or pads otherwise: for images with the channels second."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Pair = tuple[int, int]


class Rescale(nn.Module):
    """Images times a factor plus an offset, each by channel; as it starts, the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale: Tensor
        self.offset: Tensor
        self.register_buffer("scale", torch.ones(channels, 1, 1))
        self.register_buffer("offset", torch.zeros(channels, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return images * self.scale + self.offset


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of (B, C, H, W) or (B, C)."""

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim == 2:
            return super().forward(input)
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ChannelScale(nn.Module):
    """(B, C, H, W) times a learnt factor by channel (arXiv:2103.17239)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(channels))

    def forward(self, input: Tensor) -> Tensor:
        return input * self.gamma[:, None, None]


def pad_same(images: Tensor, kernel: Pair, stride: Pair) -> Tensor:
    """(B, C, H, W) padded with zeros so that a convolution gives ceil(side / stride) pixels."""
    return F.pad(images, _same_padding(images, kernel, stride))


def pool_max(images: Tensor, kernel: Pair, stride: Pair, same: bool) -> Tensor:
    """The largest value of each window; padded where `same`, by what no maximum sees."""
    return F.max_pool2d(*_padded_pool(images, kernel, stride, same=same))


def pool_average(images: Tensor, kernel: Pair, stride: Pair, same: bool) -> Tensor:
    """The mean of each window, without the padding; where that is not symmetric, the border counts twice.

    The latter is how Keras pools on its torch backend.
    """
    return F.avg_pool2d(*_padded_pool(images, kernel, stride, same=same), count_include_pad=False)


def _padded_pool(images: Tensor, kernel: Pair, stride: Pair, *, same: bool) -> tuple[Tensor, Pair, Pair, Pair]:
    left, right, top, bottom = _same_padding(images, kernel, stride) if same else (0, 0, 0, 0)
    if (left, top) == (right, bottom):
        return images, kernel, stride, (top, left)
    return F.pad(images, (left, right, top, bottom), mode="replicate"), kernel, stride, (0, 0)


def _same_padding(images: Tensor, kernel: Pair, stride: Pair) -> tuple[int, int, int, int]:
    """Pixels to the left, right, top and bottom; an odd one goes to the right and below, as in TensorFlow."""
    height, width = (
        max(0, (math.ceil(side / step) - 1) * step + size - side)
        for side, size, step in zip(images.shape[2:], kernel, stride, strict=True)
    )
    return width // 2, width - width // 2, height // 2, height - height // 2
