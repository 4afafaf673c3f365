"""Keras Applications as torch modules: built, initialised and filled by Keras, then run by torch alone."""

from __future__ import annotations

import math
import os
import random
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from getpass import getuser
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor, fx, nn

from trainables.architectures import KERAS_PREFIX
from trainables.errors import ModelError
from trainables.first_convolution import first_convolution, take_channels
from trainables.keras_graph import Conversion
from trainables.keras_layers import Rescale
from trainables.keras_names import PUBLISHED_INPUTS, known_names
from trainables.nearest import nearest
from trainables.weights import connect_timeout

_NO_WEIGHTS = ("URL fetch failure", "Incomplete or corrupted")  # how keras.utils.get_file begins its errors
_BLOCK = re.compile(r".*?(?:block_?\d+[a-z]?|expanded_conv(?:_\d+)?|conv_[dp]w_\d+)(?=_|$)")


class KerasNetwork(nn.Module):
    """Features of a Keras application, pooled, with dropout and a linear head: (B, C, H, W) to (B, num_classes).

    Attributes:
        features: the application without its top, as torch modules named like Keras' layers.
        head: the classifier.
        stages: names of all parameters from the input to the head, each exactly once; the head is the last stage,
            alone. The others are the blocks, as Keras names them, that end at the same resolution.
    """

    def __init__(self, features: nn.Module, *, width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.features = features
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_classes)
        self.stages: tuple[tuple[str, ...], ...] = ()

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.head(self.dropout(self.features(images)))
        return scores


def build(
    name: str,
    *,
    pretrained: bool,
    num_classes: int,
    in_chans: int,
    image_size: int,
    dropout: float,
    drop_path: float = 0.0,
) -> KerasNetwork:
    """An application of Keras with global average pooling and a new linear head, pretrained or not.

    Keras makes the layers and draws or loads their weights; the result holds torch's own layers with the same
    arithmetic, so that devices, autocast, copies, state dictionaries and distributed training are torch's. Under
    `torch.device("meta")` it takes no memory. New weights are drawn from Keras' own distributions, from a seed that
    torch's global generator gives. The fully connected layers of VGG and the last convolution of MobileNetV3 belong to
    Keras' top and are left out. Batch statistics move with torch's momentum of 0.1.

    Args:
        name: without the prefix.
        pretrained: weights published by Keras, for images normalised as `input_spec_of` says.
        dropout: probability before the head, in [0, 1).
        drop_path: highest probability of skipping a block, in [0, 1); of no effect where
            `keras_names.takes_drop_path` says so.

    Raises:
        ModelError: if there is no such application, keras is missing or runs on another backend, or the pretrained
            weights are neither cached nor reachable.
        ValueError: if the images are too small for it.

    Source: https://keras.io/api/applications/
    """
    _check_name(name)
    keras = _import_keras(name)
    meta = torch.get_default_device().type == "meta"  # there are no weights to load then
    with _keras_settings(keras, device="meta" if meta else "cpu", seed=0 if meta else _draw_seed()):
        published = pretrained and not meta
        if published:
            application = _load_published(keras, name, image_size)
        else:
            application = _application(keras, name, weights=None, shape=(image_size, image_size, in_chans))
    network = convert(
        application, name=name, published=published, num_classes=num_classes, dropout=dropout, drop_path=drop_path
    )
    _take_channels(network, in_chans)
    return network.to(torch.get_default_device())


def input_spec_of(name: str) -> tuple[int, list[float], list[float], str]:
    """Side in pixels, mean and deviation per RGB channel in [0, 1], and interpolation of what the weights saw."""
    _check_name(name)
    spec = PUBLISHED_INPUTS[name]
    return spec.size, list(spec.mean), list(spec.std), spec.interpolation


def convert(
    application: Any, *, name: str, published: bool, num_classes: int, dropout: float, drop_path: float = 0.0
) -> KerasNetwork:
    """A Keras model of (B, H, W, C) images without its top as a network of torch's layers for (B, C, H, W).

    Args:
        application: its weights are copied.
        published: whether they are the published ones, which take images normalised as `input_spec_of` says and, where
            Keras' model starts with normalisation, that too. Without, images are taken as they are.

    Raises:
        ModelError: if it has a layer for which there is no conversion.
    """
    spec = PUBLISHED_INPUTS[name]
    conversion = Conversion(drop_path=drop_path, channels=application.input_shape[-1])
    features = conversion.run(application, rescale=spec.built_in)
    if published and spec.built_in:
        _set_rescaling(features, conversion, mean=spec.mean, std=spec.std)
    if published and spec.bgr:
        first = first_convolution(features)
        first.weight = nn.Parameter(first.weight.detach().flip(1))
    network = KerasNetwork(features, width=application.output_shape[-1], num_classes=num_classes, dropout=dropout)
    network.stages = _stages(network, conversion.sides, image_size=application.input_shape[1])
    return network


def _check_name(name: str) -> None:
    if name not in known_names():
        near = [KERAS_PREFIX + each for each in nearest(name, sorted(known_names()))]
        hint = f"did you mean {' or '.join(near)}?" if near else "https://keras.io/api/applications/ lists them"
        raise ModelError(f"arch: unknown architecture {KERAS_PREFIX + name!r}; {hint}")


def _import_keras(name: str) -> Any:
    before = os.environ.get("KERAS_BACKEND")
    os.environ["KERAS_BACKEND"] = "torch"  # read once, when it is imported
    try:
        import keras
    except ImportError as error:
        raise ModelError(
            f"{KERAS_PREFIX}{name}: needs the package `keras`, which cannot be imported ({error}); "
            "pip install 'vistune[keras]'"
        ) from error
    finally:
        if before is None:
            del os.environ["KERAS_BACKEND"]
        else:
            os.environ["KERAS_BACKEND"] = before
    _check_backend(name, str(keras.config.backend()))
    return keras


def _check_backend(name: str, backend: str) -> None:
    if backend != "torch":
        raise ModelError(
            f"{KERAS_PREFIX}{name}: needs keras on its torch backend, but it was imported with {backend}; "
            "set KERAS_BACKEND=torch in the environment"
        )


def _draw_seed() -> int:
    return int(torch.randint(2**31 - 1, (), device="cpu"))


@contextmanager
def _keras_settings(keras: Any, *, device: str, seed: int) -> Iterator[None]:
    """Fixed settings whatever the user's keras.json says, and a seed for Keras' initializers; both put back.

    Initializers without a seed take one from Python's `random` and draw by a generator of their own.
    """
    layout, precision, state = keras.config.image_data_format(), keras.config.floatx(), random.getstate()
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    random.seed(seed)
    try:
        with keras.device(device):
            yield
    finally:
        random.setstate(state)
        keras.config.set_floatx(precision)
        keras.config.set_image_data_format(layout)


def _application(keras: Any, name: str, *, weights: str | None, shape: tuple[int, int, int]) -> Any:
    constructor = getattr(keras.applications, name)  # PUBLISHED_INPUTS is the explicit list
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This model usually expects 1 or 3 input channels")
        warnings.filterwarnings("ignore", message="`input_shape` is undefined or non-square")  # other sizes are meant
        return constructor(include_top=False, weights=weights, input_shape=shape, pooling="avg")


def _load_published(keras: Any, name: str, image_size: int) -> Any:
    lock = FileLock(Path(tempfile.gettempdir()) / f"vistune-keras-{getuser()}.lock")
    try:
        with connect_timeout(), lock:  # trials of one node would download into the same file
            return _application(keras, name, weights="imagenet", shape=(image_size, image_size, 3))
    except Exception as error:  # keras raises a bare Exception
        if not isinstance(error, OSError) and not str(error).startswith(_NO_WEIGHTS):
            raise
        raise ModelError(
            f"{KERAS_PREFIX}{name}: its pretrained weights are neither cached nor reachable ({error}); connect this "
            "node to the network, put them in models/ below $KERAS_HOME (~/.keras), give weights: PATH, or set "
            "pretrained: false"
        ) from error


def _set_rescaling(module: fx.GraphModule, conversion: Conversion, *, mean: Any, std: Any) -> None:
    """Makes the first layer turn images normalised by mean and std into what Keras' normalisation of pixels gives.

    For most applications that is the identity; EfficientNet's weights hold statistics of their own.
    """
    factor, offset = (each.to("cpu", torch.float64)[:, None, None] for each in conversion.normalisation)
    mean, std = (torch.tensor(each, dtype=torch.float64)[:, None, None] for each in (mean, std))
    rescale = module.get_submodule("rescale")
    rescale.load_state_dict({"scale": factor * 255 * std, "offset": factor * 255 * mean + offset})


def _take_channels(network: KerasNetwork, in_chans: int) -> None:
    """Lets a network for RGB take other channels, its response to gray images kept; nothing where they fit."""
    if first_convolution(network).in_channels == in_chans:
        return
    take_channels(network, in_chans)
    for layer in network.modules():
        if isinstance(layer, Rescale):
            layer.scale = layer.scale.mean(0, keepdim=True).repeat(in_chans, 1, 1)
            layer.offset = layer.offset.mean(0, keepdim=True).repeat(in_chans, 1, 1)


def _stages(network: KerasNetwork, sides: Mapping[str, int], *, image_size: int) -> tuple[tuple[str, ...], ...]:
    """Parameter names by the number of halvings at the end of their layer's block; see `KerasNetwork`."""
    halvings: dict[str, int] = {}
    for layer, side in sides.items():
        block = _block_of(layer)
        # Layers behind the pooling have no side; they belong to the deepest.
        here = round(math.log2(image_size / side)) if side else max(halvings.values())
        halvings[block] = here  # the block's last layer decides; squeeze-and-excitation within it has a side of 1
    stages: dict[int, list[str]] = {}
    for name, _ in network.features.named_parameters(prefix="features"):
        stages.setdefault(halvings[_block_of(name.split(".")[1])], []).append(name)
    head = tuple(name for name, _ in network.head.named_parameters(prefix="head"))
    return (*(tuple(stages[depth]) for depth in sorted(stages)), head)


def _block_of(layer: str) -> str:
    match = _BLOCK.match(layer)
    return match[0] if match else layer
