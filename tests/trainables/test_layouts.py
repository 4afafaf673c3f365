"""Bytes in the other order are the same bytes, whatever the order they come in."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainables.layouts import to_pixels, to_planes


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    planes = torch.randint(0, 256, (5, 3, 6, 4), dtype=torch.uint8, generator=generator)
    pixels = planes.contiguous(memory_format=torch.channels_last)
    parts = [planes[1:4], pixels[1:4], planes[:, :, 1:, 2:], pixels[:, :, :, ::2], planes.permute(0, 1, 3, 2)]
    shapes = [planes[:, :1], planes[:, :2], planes[:0], planes[:, :, :1, :1], planes[:1]]
    return [planes, pixels, *parts, *shapes, planes.float(), pixels.float()]


@pytest.mark.parametrize("images", batches())
def test_the_images_stay_what_they_are(images: Tensor) -> None:
    before = images.clone()
    for moved, memory_format in ((to_planes, torch.contiguous_format), (to_pixels, torch.channels_last)):
        found = moved(images)
        assert torch.equal(found, before) and found.dtype is images.dtype
        assert found.is_contiguous(memory_format=memory_format)
        assert moved(found) is found or found.numel() == 0  # nothing to do
    assert torch.equal(images, before)
