"""Which architectures of Keras Applications can be built, and for which images were their weights trained?

Free of keras and torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class PublishedInput:
    """What the published weights of an architecture saw.

    Attributes:
        size: side in pixels.
        mean: by RGB channel, of values in [0, 1].
        std: like mean.
        interpolation: how images are resized.
        bgr: whether the weights take blue first.
        built_in: whether Keras' own model starts with normalisation, for pixels in [0, 255].
    """

    size: int = 224
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    bgr: bool = False
    built_in: bool = False


def _caffe() -> PublishedInput:
    # keras.applications.imagenet_utils: BGR from 0 to 255, less the mean of each channel, not scaled.
    scale = 1 / 255
    return PublishedInput(mean=(123.68 / 255, 116.779 / 255, 103.939 / 255), std=(scale, scale, scale), bgr=True)


def _imagenet(size: int, interpolation: Literal["bilinear", "bicubic"], *, built_in: bool) -> PublishedInput:
    return PublishedInput(size, IMAGENET_MEAN, IMAGENET_STD, interpolation, built_in=built_in)


def _efficientnet_v2(size: int) -> PublishedInput:
    middle = 128 / 255  # the larger ones take x / 128 - 1
    return PublishedInput(size, (middle,) * 3, (middle,) * 3, "bicubic", built_in=True)


# All but NASNetMobile, which Keras does not offer on its torch backend.
PUBLISHED_INPUTS: dict[str, PublishedInput] = {
    **{f"ConvNeXt{size}": _imagenet(224, "bicubic", built_in=True) for size in ("Tiny", "Small", "Base")},
    **{f"ConvNeXt{size}": _imagenet(224, "bicubic", built_in=True) for size in ("Large", "XLarge")},
    **{f"DenseNet{depth}": _imagenet(224, "bilinear", built_in=False) for depth in (121, 169, 201)},
    **{
        f"EfficientNetB{number}": _imagenet(size, "bicubic", built_in=True)
        for number, size in enumerate((224, 240, 260, 300, 380, 456, 528, 600))
    },
    **{
        f"EfficientNetV2B{number}": _imagenet(size, "bicubic", built_in=True)
        for number, size in enumerate((224, 240, 260, 300))
    },
    "EfficientNetV2S": _efficientnet_v2(384),
    "EfficientNetV2M": _efficientnet_v2(480),
    "EfficientNetV2L": _efficientnet_v2(480),
    "InceptionResNetV2": PublishedInput(299),
    "InceptionV3": PublishedInput(299),
    "MobileNet": PublishedInput(),
    "MobileNetV2": PublishedInput(),
    "MobileNetV3Large": PublishedInput(built_in=True),
    "MobileNetV3Small": PublishedInput(built_in=True),
    "NASNetLarge": PublishedInput(331),
    **{f"ResNet{depth}": _caffe() for depth in (50, 101, 152)},
    **{f"ResNet{depth}V2": PublishedInput() for depth in (50, 101, 152)},
    "VGG16": _caffe(),
    "VGG19": _caffe(),
    "Xception": PublishedInput(299),
}


def known_names() -> frozenset[str]:
    """Names without the prefix keras/; the same whether keras is installed or not."""
    return frozenset(PUBLISHED_INPUTS)


def takes_drop_path(name: str) -> bool:
    """Whether an architecture offers stochastic depth; NAME without the prefix."""
    return name in PUBLISHED_INPUTS and name.startswith("EfficientNet")
