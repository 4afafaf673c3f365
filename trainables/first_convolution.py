"""How does a network for RGB take images of other channels? Its first convolution is adapted."""

from __future__ import annotations

from torch import nn


def first_convolution(model: nn.Module) -> nn.Conv2d:
    """The convolution that sees the images."""
    return next(module for module in model.modules() if isinstance(module, nn.Conv2d))


def take_channels(model: nn.Module, in_chans: int) -> None:
    """Lets the first convolution take other channels than it does, its response to gray images kept.

    Source: timm's adapt_input_conv: summed for one channel, repeated and rescaled for more.
    """
    first = first_convolution(model)
    if first.in_channels == in_chans:
        return
    from timm.models import adapt_input_conv

    first.weight = nn.Parameter(adapt_input_conv(in_chans, first.weight.detach()))
    first.in_channels = in_chans
