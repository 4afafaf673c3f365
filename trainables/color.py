"""Changes of colour and sharpness of whole batches, each image by its own strength."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.geometry import cached_parts, to_uint8
from trainables.layouts import to_planes

_GRAY = (0.2989, 0.587, 0.114)


def color_jitter(images: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue changed, in this order, and rounded once at the end.

    torchvision's order is random; a fixed one is faster on a batch, and the four nearly commute. On gray images
    saturation and hue change nothing.

    Args:
        images: (B, C, H, W) uint8, C of 1 or 3.
        factors: (B, 4) float32; brightness, contrast and saturation as factors from 0, hue as an addition in
            [-0.5, 0.5], turns of the colour circle.

    Returns:
        (B, C, H, W) uint8, a new tensor, contiguous.

    Source: torchvision's ColorJitter, on float images.
    """
    out = torch.empty(images.shape, dtype=torch.uint8, device=images.device)
    images = to_planes(images)
    for part in cached_parts(images):
        pixels = images[part].to(torch.float32)
        out[part] = to_uint8(_jitter(pixels, factors[part]).add_(0.5))
    return out


def _jitter(pixels: Tensor, factors: Tensor) -> Tensor:
    """`color_jitter` of float32 pixels from 0 to 255, in place as far as possible."""
    brightness, contrast, saturation, hue = factors[:, :, None, None, None].unbind(1)
    pixels = pixels.mul_(brightness).clamp_(0, 255)
    mean = gray(pixels).mean(dim=(1, 2, 3), keepdim=True)
    pixels = pixels.mul_(contrast).add_(mean.mul_(1 - contrast)).clamp_(0, 255)
    if pixels.shape[1] == 1:
        return pixels
    luminance = gray(pixels)
    pixels = pixels.mul_(saturation).add_(luminance.mul_(1 - saturation)).clamp_(0, 255)
    return _turn_hue(pixels, hue)


def gray(images: Tensor) -> Tensor:
    """(B, 1, H, W) float32: luminance of RGB images, not rounded; gray images as they are."""
    if images.shape[1] == 1:
        return images.to(torch.float32)
    red, green, blue = images[:, :1], images[:, 1:2], images[:, 2:]
    return red.mul(_GRAY[0]).add_(green, alpha=_GRAY[1]).add_(blue, alpha=_GRAY[2])


def _turn_hue(pixels: Tensor, hue: Tensor) -> Tensor:
    """RGB pixels with their hue moved; value and saturation stay, so the largest and smallest channel do.

    Source: the closed forms of the conversions between RGB and HSV, as in Pillow and torchvision.
    """
    red, green, blue = pixels[:, :1], pixels[:, 1:2], pixels[:, 2:]
    warm = torch.maximum(red, green)
    value = torch.maximum(warm, blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    per_chroma = chroma.clamp_min(1e-6).reciprocal_()
    # Sixths of a turn from red, green or blue, whichever is largest; chosen by signs, as comparing is slow.
    sixths = (green - blue).mul_(per_chroma)
    sixths.lerp_((blue - red).mul_(per_chroma).add_(2), (warm - red).sign_())
    sixths.lerp_((red - green).mul_(per_chroma).add_(4), (value - warm).sign_())
    sixths.add_(6 * hue)
    # A channel falls below the value by the chroma times clamp(min(k, 4 - k), 0, 1), k the sixths from its own place.
    places = torch.tensor([5.0, 3.0, 1.0], device=pixels.device).view(1, 3, 1, 1)
    turns = (sixths + places).mul_(1 / 6)
    k = turns.sub_(turns.floor()).mul_(6)
    drop = torch.minimum(k, 4 - k).clamp_(0, 1)
    return drop.mul_(chroma).neg_().add_(value)


def blend(images: Tensor, others: Tensor, ratios: Tensor) -> Tensor:
    """`ratios` of the images and the rest of the others, cut off to uint8.

    Args:
        images: (B, C, H, W) uint8.
        others: float32 that broadcasts to it.
        ratios: (B,) float64, from 0.
    """
    ratio, rest = (_as_weights(each) for each in (ratios, 1 - ratios))
    return to_uint8(images.mul(ratio).addcmul_(others, rest).clamp_(0, 255))


def brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Brightness times (B,) factors; uint8 in and out, as in torchvision's adjust_brightness."""
    return to_uint8(images.mul(_as_weights(factors)).clamp_(0, 255))


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Distance from the mean luminance times (B,) factors, as in torchvision's adjust_contrast."""
    return blend(images, gray(images).floor_().mean(dim=(1, 2, 3), keepdim=True), factors)


def saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Distance from gray times (B,) factors, as in torchvision's adjust_saturation."""
    return images if images.shape[1] == 1 else blend(images, gray(images).floor_(), factors)


def sharpness(images: Tensor, factors: Tensor) -> Tensor:
    """Distance from the smoothed image times (B,) factors, borders left, as in torchvision's adjust_sharpness."""
    if min(images.shape[-2:]) <= 2:
        return images
    pixels = images.to(torch.float32)
    inner = pixels[:, :, 1:-1, 1:-1]
    rows = pixels[:, :, :-2] + pixels[:, :, 1:-1]
    rows.add_(pixels[:, :, 2:])
    # The kernel is 1 all around a 5, over 13. Sums of a window by rows, then columns.
    smooth = rows[..., :-2] + rows[..., 1:-1]
    smooth.add_(rows[..., 2:]).add_(inner, alpha=4).mul_(1 / 13).round_()
    inner.addcmul_(smooth.sub_(inner), _as_weights(1 - factors))
    return to_uint8(pixels.clamp_(0, 255))


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """The highest (B,) bits of each value."""
    masks = 256 - 2 ** (8 - bits.to(torch.int64))
    return images & masks.to(torch.uint8)[:, None, None, None]


def solarize(images: Tensor, thresholds: Tensor) -> Tensor:
    """Values from the (B,) thresholds on inverted."""
    return torch.where(images >= _as_weights(thresholds), ~images, images)


def auto_contrast(images: Tensor) -> Tensor:
    """Values of each channel stretched to 0 to 255, as in torchvision's autocontrast."""
    from torchvision.transforms.v2 import functional as tv

    stretched: Tensor = tv.autocontrast(images)
    return stretched


def equalize(images: Tensor) -> Tensor:
    """Histogram of each channel made flat, as in torchvision's equalize; uint8 in and out."""
    planes = images.flatten(0, 1).flatten(1)
    count, size = planes.shape
    values = planes.to(torch.int64)
    places = values + 256 * torch.arange(count, device=images.device)[:, None]
    # float32 is exact below 2**24 pixels, also in the quotients cut to whole numbers, and divides much faster.
    totals = torch.bincount(places.view(-1), minlength=256 * count).view(count, 256).to(torch.float32).cumsum_(1)
    # Pillow's rule: pixels of the largest value that occurs do not count.
    counted = torch.where(totals < size, totals, 0).amax(1, keepdim=True)
    step = counted.div_(255).floor_()
    levels = totals.add_((step / 2).floor_()).div_(step.clamp(min=1)).floor_().clamp_(max=255)
    table = torch.zeros(count, 256, dtype=torch.uint8, device=images.device)
    table[:, 1:] = to_uint8(levels[:, :-1])
    table = torch.where(step == 0, torch.arange(256, dtype=torch.uint8, device=images.device), table)
    return table.gather(1, values).view_as(images)


def _as_weights(values: Tensor) -> Tensor:
    return values.to(torch.float32)[:, None, None, None]
