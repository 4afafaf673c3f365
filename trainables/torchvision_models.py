"""torchvision's classifiers by name, with the head, the input channels and the dropout that a task needs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.errors import ModelError
from trainables.first_convolution import take_channels
from trainables.weights import Adaptable, State, connect_timeout

_AUXILIARY = ("AuxLogits", "aux1", "aux2")
_AUXILIARY_HEADS = ("AuxLogits.fc", "aux1.fc2", "aux2.fc2")

# Smallest side in pixels at which the auxiliary heads can be computed. Inception v3's is a 5x5 convolution on features
# pooled to 5x5, which take 299 pixels; GoogLeNet pools to 4x4 whatever the size.
_AUXILIARY_FROM_SIZE = {"inception_v3": 299, "googlenet": 1}
_WEIGHTS_ONLY, _NOT_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_DENSENET_KEY = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")


def known_names() -> list[str]:
    """Every classification model, without the prefix."""
    from torchvision import models

    return list(models.list_models(module=models))


def build(
    name: str, *, num_classes: int, in_chans: int, image_size: int, dropout: float, drop_path: float
) -> nn.Module:
    """A classifier of torchvision with new weights, adapted to the task.

    GoogLeNet and Inception v3 have their auxiliary heads, and return their scores too in training mode, where the
    images are large enough for them. Their own change of normalisation is off (see `input_of`).

    Args:
        name: without the prefix.
        image_size: side in pixels; vision transformers and MaxViT are built for it, all others take any.
        dropout: probability of the dropout layers of the classifier, or of a new one before its last layer.
        drop_path: highest probability of skipping a block, the deepest; nothing where no block can be skipped.
    """
    from torchvision import models

    options: dict[str, Any] = {"weights": None, "progress": False, "num_classes": num_classes}
    if name.startswith("vit_"):
        options["image_size"] = image_size
    if name.startswith("maxvit"):
        options["input_size"] = (image_size, image_size)
    if name in _AUXILIARY_FROM_SIZE:
        options["init_weights"] = True  # it warns when left open
        options["transform_input"] = False
        options["aux_logits"] = image_size >= _AUXILIARY_FROM_SIZE[name]
    model: nn.Module = models.get_model_builder(name)(**options)
    _set_dropout(model, dropout)
    _set_drop_path(model, drop_path)
    take_channels(model, in_chans)
    return model


def published_weights(name: str) -> State:
    """The state dictionary of the pretrained weights, of a model that nothing was adapted in.

    Raises:
        OSError: if the weights are neither cached nor reachable.
        ModelError: if the cached file holds anything but tensors.
    """
    from torchvision import models

    state = torch.random.get_rng_state()  # building draws weights, only to replace them
    weights = models.get_model_weights(name).DEFAULT
    try:
        with connect_timeout(), _tensors_only():
            published: nn.Module = models.get_model_builder(name)(weights=weights, progress=False)
    except UnpicklingError as error:
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(weights.url).path).name
        raise ModelError(
            f"torchvision/{name}: {file} holds more than tensors; remove it, to have it fetched"
        ) from error
    torch.random.set_rng_state(state)
    return dict(published.state_dict())


@contextmanager
def _tensors_only() -> Iterator[None]:
    """Has torch.load run no code of a pickle; torchvision, which calls it, cannot be told."""
    before = {name: os.environ.pop(name) for name in (_WEIGHTS_ONLY, _NOT_WEIGHTS_ONLY) if name in os.environ}
    os.environ[_WEIGHTS_ONLY] = "1"
    try:
        yield
    finally:
        del os.environ[_WEIGHTS_ONLY]
        os.environ.update(before)


def adaptable(model: nn.Module) -> Adaptable:
    """How a state dictionary is made to fit a convolutional network or one of torchvision's."""
    convolutions = [name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)]
    return Adaptable(
        heads=(_head_of(model), *_AUXILIARY_HEADS),
        auxiliary=_AUXILIARY,
        first_convolutions=convolutions[:1],
        convert=_convert_weights,
    )


def input_of(name: str) -> tuple[int, list[float], list[float], str]:
    """Side in pixels, mean and deviation per RGB channel in [0, 1], and interpolation of what the weights saw."""
    from torchvision import models

    preset = models.get_model_weights(name).DEFAULT.transforms()
    mean, std = list(preset.mean), list(preset.std)
    if name in _AUXILIARY_FROM_SIZE:
        # Ported from TensorFlow: their `transform_input` turns ImageNet's normalisation into this one.
        mean, std = [0.5] * 3, [0.5] * 3
    return int(preset.crop_size[0]), mean, std, str(preset.interpolation.value)


def weights_address(name: str) -> str:
    """Where the pretrained weights are published."""
    from torchvision import models

    return str(models.get_model_weights(name).DEFAULT.url)


class DropoutLinear(nn.Linear):
    """A linear layer with dropout before it, which its state dictionary does not show: weights fit with and without."""

    def __init__(self, linear: nn.Linear, *, dropout: float) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.dropout = nn.Dropout(dropout)

    def forward(self, input: Tensor) -> Tensor:
        scores: Tensor = F.linear(self.dropout(input), self.weight, self.bias)
        return scores


def _head_of(model: nn.Module) -> str:
    """Name of the layer that gives the scores: the last linear layer, or the last convolution in SqueezeNet."""
    return str([name for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1])


def _convert_weights(state: State, model: nn.Module) -> State:
    """A state dictionary as the model names and shapes it: old DenseNet keys, position embeddings of another size.

    Source: torchvision's own loaders, `densenet._load_state_dict` and `vision_transformer.interpolate_embeddings`.
    """
    state = {str(_DENSENET_KEY.sub(r"\1\2", name)): tensor for name, tensor in state.items()}
    name = "encoder.pos_embedding"
    own = model.state_dict().get(name)
    if own is not None and name in state and state[name].shape != own.shape:
        state[name] = _resample_positions(state[name], length=own.shape[1])
    return state


def _set_dropout(model: nn.Module, dropout: float) -> None:
    name = _head_of(model)
    classifier = model.get_submodule(name.split(".")[0])
    layers = [layer for layer in classifier.modules() if isinstance(layer, nn.Dropout)]
    beside = getattr(model, "dropout", None)  # where GoogLeNet and Inception keep theirs
    if isinstance(beside, nn.Dropout):
        layers.append(beside)
    for layer in layers:
        layer.p = dropout
    head = model.get_submodule(name)
    if not layers and dropout > 0 and isinstance(head, nn.Linear):
        model.set_submodule(name, DropoutLinear(head, dropout=dropout))


def _set_drop_path(model: nn.Module, drop_path: float) -> None:
    """Scales the probabilities, which grow with the depth, to the wanted highest.

    By hand since half of torchvision's builders fix `stochastic_depth_prob`.
    """
    from torchvision.ops import StochasticDepth

    layers = [layer for layer in model.modules() if isinstance(layer, StochasticDepth)]
    highest = max((layer.p for layer in layers), default=0.0)
    for layer in layers:
        layer.p = layer.p / highest * drop_path if highest > 0 else 0.0


def _resample_positions(positions: Tensor, *, length: int) -> Tensor:
    from torchvision.models.vision_transformer import interpolate_embeddings

    # Patches of one pixel make its image size the side of the grid of patches.
    resampled = interpolate_embeddings(
        image_size=round((length - 1) ** 0.5), patch_size=1, model_state={"encoder.pos_embedding": positions}
    )
    return torch.as_tensor(resampled["encoder.pos_embedding"])
