"""A plain convolutional network whose shape is searched: stages, depth, width, kernel, normalisation, activation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from trainables.hyperparameters import Hyperparameters
from trainables.small_cnn import StandardizedConv2d

_SMALLEST_POOLED = 4
_MOST_GROUPS = 8
_LEAK = 0.01

_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(_LEAK, inplace=True),
    "gelu": nn.GELU,
    "silu": lambda: nn.SiLU(inplace=True),
}


class CNN(nn.Module):
    """`cnn_stages` stages of `cnn_depth` convolutions, then the mean over the image and a linear classifier.

    The first stage has `cnn_width` channels, each later one twice as many as the one before. Every stage but the first
    begins by halving the side (max-pooling) while it is at least 4 pixels, so that no choice is too deep for an image.
    A convolution is followed by normalisation and activation. Before group normalisation the weights of convolutions
    are standardised, for the reason measured in `SmallCNN`.

    Args:
        config: its `cnn_` fields and `dropout`.
        image_size: side of the images in pixels; decides between which stages the side is halved.

    Source: 3x3 stages, arXiv:1409.1556; initialisation, arXiv:1502.01852; weight standardisation, arXiv:1903.10520.
    """

    def __init__(self, config: Hyperparameters, *, num_classes: int, in_chans: int, image_size: int) -> None:
        super().__init__()
        self.stages = nn.Sequential()
        side, width = image_size, config.cnn_width
        for stage in range(config.cnn_stages):
            layers: list[nn.Module] = []
            if stage > 0 and side >= _SMALLEST_POOLED:
                layers.append(nn.MaxPool2d(2))
                side //= 2
            for _ in range(config.cnn_depth):
                layers += _block(config, in_chans, width)
                in_chans = width
            self.stages.append(nn.Sequential(*layers))
            width *= 2
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(in_chans, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores, (B, num_classes), of normalised images, (B, in_chans, H, W)."""
        scores: Tensor = self.head(self.dropout(self.pool(self.stages(images))))
        return scores


def _block(config: Hyperparameters, in_chans: int, out_chans: int) -> list[nn.Module]:
    kernel, norm = config.cnn_kernel, config.cnn_norm
    # One weight for each channel has no deviation to standardise by.
    standardized = norm == "group" and in_chans * kernel**2 > 1
    convolution = (StandardizedConv2d if standardized else nn.Conv2d)(
        in_chans, out_chans, kernel, padding=kernel // 2, bias=norm == "none"
    )
    # GELU and SiLU pass about what ReLU does, and PyTorch has no gain of their own.
    slope = _LEAK if config.cnn_activation == "leaky_relu" else 0.0
    nn.init.kaiming_normal_(convolution.weight, a=slope, nonlinearity="leaky_relu")
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return [convolution, *_normalization(norm, out_chans), _ACTIVATIONS[config.cnn_activation]()]


def _normalization(norm: str, channels: int) -> list[nn.Module]:
    if norm == "batch":
        return [nn.BatchNorm2d(channels)]
    if norm == "group":
        return [nn.GroupNorm(math.gcd(channels, _MOST_GROUPS), channels)]
    return []
