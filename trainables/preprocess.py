"""From pixels to what a network takes: its size, zero mean and unit variance."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


class Preprocess:
    """Pixels of any size to normalised float32 of the network's size.

    Args:
        size: side in pixels.
        mean, std: per channel, of pixel values in [0, 1].
        interpolation: how images of another size are resized, with antialiasing.
        channels_last: of the result's memory; else contiguous.
    """

    def __init__(
        self,
        *,
        size: int,
        mean: list[float],
        std: list[float],
        interpolation: Literal["bilinear", "bicubic"],
        device: torch.device,
        channels_last: bool = True,
    ) -> None:
        self.size = size
        self.in_chans = len(mean)
        self._size = (size, size)
        self._given = (mean, std, device)
        self._channels_last = channels_last
        self._interpolation = interpolation
        # Repeated along a row of pixels, channels-last: operations over a last dimension of 3 are slow.
        self._mean = (torch.tensor(mean, device=device) * 255).repeat(size)
        self._inverse_std = (1 / (torch.tensor(std, device=device) * 255)).repeat(size)

    def at(self, size: int) -> Preprocess:
        """The same for a network input of another size."""
        mean, std, device = self._given
        return Preprocess(
            size=size,
            mean=mean,
            std=std,
            interpolation=self._interpolation,
            device=device,
            channels_last=self._channels_last,
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Network input of a batch.

        Args:
            images: (B, C, H, W) from 0 to 255, uint8 or float32.

        Returns:
            (B, C, size, size) float32; a new tensor.
        """
        pixels = images.to(torch.float32, copy=True)
        if pixels.shape[-2:] != self._size:
            pixels = F.interpolate(pixels, self._size, mode=self._interpolation, antialias=True)
            if self._interpolation == "bicubic":  # overshoots at edges, which no 8-bit image can
                pixels.clamp_(0, 255)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        rows = pixels.permute(0, 2, 3, 1).flatten(2)  # (B, size, size * C), the same memory
        rows.sub_(self._mean).mul_(self._inverse_std)
        return pixels if self._channels_last else pixels.contiguous()
