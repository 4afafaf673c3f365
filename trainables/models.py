"""Which network does an architecture name mean? Heads, input channels, image size, dropout and weights adapted."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from trainables import timm_models, torchvision_models
from trainables.architectures import KERAS_PREFIX, OWN, SMALL_CNN, TORCHVISION_PREFIX, takes_drop_path
from trainables.cnn import CNN
from trainables.errors import ModelError, first_line
from trainables.hyperparameters import Hyperparameters
from trainables.keras_names import known_names as keras_names
from trainables.memory import is_out_of_memory
from trainables.nearest import nearest
from trainables.small_cnn import SmallCNN
from trainables.weights import (
    Adaptable,
    State,
    Task,
    find_weights,
    load_fitting,
    load_starting_weights,
)

# What networks raise when an image is too small for them, or its side does not divide into patches.
_SHAPE_ERRORS = (
    RuntimeError,
    ValueError,
    AssertionError,
    TypeError,
    IndexError,
    ZeroDivisionError,
    NotImplementedError,
)


@dataclass(frozen=True)
class InputSpec:
    """What a network takes.

    Attributes:
        size: side of the images in pixels.
        mean, std: per channel, of pixel values in [0, 1], to normalise by.
        interpolation: how images of another size are brought to it.
    """

    size: int
    mean: list[float]
    std: list[float]
    interpolation: Literal["bilinear", "bicubic"]


def input_spec(
    config: Hyperparameters, *, data_mean_std: tuple[list[float], list[float]], in_chans: int, image_size: int
) -> InputSpec:
    """What the configured network takes: as the weights that it starts from were trained, else as the data are.

    The size is `input_size` where that is given; else that of published weights or of the earlier run that the network
    starts from; else that of the images. Statistics over RGB are averaged for gray images.

    Raises:
        ModelError: if `weights` names nothing that can be used.
    """
    trained = _trained_input(config)
    if trained is None:
        mean, std = data_mean_std
        return InputSpec(config.input_size or image_size, list(mean), list(std), "bicubic")
    size, mean, std, interpolation = trained
    if len(mean) != in_chans:
        mean, std = [sum(mean) / len(mean)] * in_chans, [sum(std) / len(std)] * in_chans
    return InputSpec(
        size=config.input_size or size or image_size,
        mean=mean,
        std=std,
        interpolation="bilinear" if interpolation == "bilinear" else "bicubic",
    )


def build_model(
    config: Hyperparameters,
    *,
    num_classes: int,
    in_chans: int,
    image_size: int,
    class_names: Sequence[str] | None = None,
) -> nn.Module:
    """The configured network: (B, in_chans, image_size, image_size) float to (B, num_classes) scores.

    In training mode Inception v3 and GoogLeNet give the scores of their auxiliary heads too; see `split_outputs`. New
    weights are drawn from torch's global generator, which the caller seeds.

    Args:
        image_size: the side that the network sees, `InputSpec.size`.
        class_names: where given, the head of an earlier run is kept only if its classes were the same.

    Raises:
        ModelError: if the architecture is unknown, cannot be built for such images, or its weights are out of reach
            or do not fit.
    """
    check_arch(config.arch, pretrained=config.pretrained)
    if config.drop_path > 0 and not takes_drop_path(config.arch):
        raise ModelError(f"{config.arch}: has no blocks that can be skipped; set drop_path: 0, or choose another arch")
    try:
        return _build(
            config, num_classes=num_classes, in_chans=in_chans, image_size=image_size, class_names=class_names
        )
    except OSError as error:
        raise _no_weights(config.arch, error) from error
    except _SHAPE_ERRORS as error:
        raise _unfit(config.arch, image_size, in_chans, error) from error


@contextmanager
def shapes_fit(arch: str, *, image_size: int, in_chans: int) -> Iterator[None]:
    """For a pass through a network: raises ModelError where it does not take such images."""
    try:
        yield
    except _SHAPE_ERRORS as error:
        if is_out_of_memory(error) or isinstance(error, torch.AcceleratorError):  # of the device, not of the network
            raise
        raise _unfit(arch, image_size, in_chans, error) from error


def check_model(
    config: Hyperparameters, *, num_classes: int, in_chans: int, image_size: int, other_sizes: Collection[int] = ()
) -> int:
    """Builds the network without memory and passes two images through its shapes; downloads nothing.

    Local weights are read and compared with it by names and shapes.

    Args:
        other_sizes: sides of images that a network built for `image_size` is to take as well.

    Returns:
        The number of parameters.

    Raises:
        ModelError: if the architecture is unknown, has no pretrained weights where they are wanted, the local weights
            do not fit it, or the images do not.
    """
    check_arch(config.arch, pretrained=config.pretrained)
    with torch.device("meta"), torch.no_grad():
        unfetched = config.model_copy(update={"pretrained": False})
        model = build_model(unfetched, num_classes=num_classes, in_chans=in_chans, image_size=image_size)
        with shapes_fit(config.arch, image_size=image_size, in_chans=in_chans):
            scores, _ = split_outputs(model(torch.empty(2, in_chans, image_size, image_size)))
        _check_sizes(config.arch, model, sizes=other_sizes, image_size=image_size, in_chans=in_chans)
    if not isinstance(scores, Tensor) or scores.shape != (2, num_classes):
        found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ModelError(
            f"{config.arch}: must give scores of shape (2, {num_classes}), got {found}; "
            "choose another architecture, this one is no plain classifier"
        )
    return count_parameters(model)


def _check_sizes(arch: str, model: nn.Module, *, sizes: Collection[int], image_size: int, in_chans: int) -> None:
    for size in sizes:
        try:
            model(torch.empty(2, in_chans, size, size))
        except (*_SHAPE_ERRORS, AssertionError) as error:
            raise ModelError(
                f"{arch}: built for images of {image_size}x{image_size} px, takes none of {size}x{size} px: "
                f"{first_line(error)}; write scheduler.fidelity: data_fraction, raise scheduler.lowest_fidelity, or "
                "choose another architecture"
            ) from error


def check_arch(arch: str, *, pretrained: bool) -> None:
    """Whether an architecture exists, and has pretrained weights where they are wanted; costs no building.

    Raises:
        ModelError: naming the nearest architectures.
    """
    if arch in OWN:
        if pretrained:
            raise ModelError(
                f"{arch}: it has no pretrained weights; set pretrained: false, give weights: PATH, or choose another"
            )
    elif arch.startswith(TORCHVISION_PREFIX):
        _check_known(arch, [TORCHVISION_PREFIX + name for name in torchvision_models.known_names()])
    elif arch.startswith(KERAS_PREFIX):
        _check_known(arch, [KERAS_PREFIX + name for name in keras_names()])
    else:
        timm_models.check_arch(arch, pretrained=pretrained)


def split_outputs(outputs: Tensor | tuple[Tensor | None, ...]) -> tuple[Tensor, list[Tensor]]:
    """The class scores that a network gave, and those of its auxiliary heads: none in evaluation mode."""
    if isinstance(outputs, tuple):
        scores, *auxiliary = outputs
        assert scores is not None
        return scores, [each for each in auxiliary if each is not None]
    return outputs, []


def auxiliary_weight(arch: str) -> float:
    """Weight of the loss of each auxiliary head beside that of the scores; 0 for networks that have none.

    Source: arXiv:1409.4842 for GoogLeNet; torchvision's reference training for Inception v3.
    """
    if arch == f"{TORCHVISION_PREFIX}googlenet":
        return 0.3
    return 0.4 if timm_models.is_inception(arch) or arch == f"{TORCHVISION_PREFIX}inception_v3" else 0.0


def count_parameters(model: nn.Module) -> int:
    """Number of scalars in the trainable and frozen parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def _build(
    config: Hyperparameters, *, num_classes: int, in_chans: int, image_size: int, class_names: Sequence[str] | None
) -> nn.Module:
    start = None if config.weights is None else find_weights(config.weights, arch=config.arch)
    if start is None and _is_timm(config.arch):
        return timm_models.build(
            config.arch,
            pretrained=config.pretrained,
            num_classes=num_classes,
            in_chans=in_chans,
            image_size=image_size,
            dropout=config.dropout,
            drop_path=config.drop_path,
        )
    model, adaptable = _build_adaptable(config, num_classes=num_classes, in_chans=in_chans, image_size=image_size)
    task = Task(config.arch, num_classes=num_classes, in_chans=in_chans, class_names=class_names)
    if start is not None:
        load_starting_weights(model, start, task=task, adaptable=adaptable)
    elif config.pretrained and config.arch.startswith(TORCHVISION_PREFIX):
        published = torchvision_models.published_weights(config.arch.removeprefix(TORCHVISION_PREFIX))
        load_fitting(model, published, source="its pretrained weights", task=task, adaptable=adaptable)
    return model


def _build_adaptable(config: Hyperparameters, **options: int) -> tuple[nn.Module, Adaptable]:
    """The network with new weights, and how others are made to fit it; networks of Keras load their published ones."""
    arch, dropout, drop_path = config.arch, config.dropout, config.drop_path
    if arch == SMALL_CNN:
        model: nn.Module = SmallCNN(**options, dropout=dropout)
    elif arch in OWN:
        model = CNN(config, **options)
    elif arch.startswith(KERAS_PREFIX):
        from trainables import keras_models

        name = arch.removeprefix(KERAS_PREFIX)
        model = keras_models.build(name, pretrained=config.pretrained, dropout=dropout, drop_path=drop_path, **options)
        return model, replace(torchvision_models.adaptable(model), convert=_convert_keras)
    elif arch.startswith(TORCHVISION_PREFIX):
        name = arch.removeprefix(TORCHVISION_PREFIX)
        model = torchvision_models.build(name, dropout=dropout, drop_path=drop_path, **options)
    else:
        return timm_models.build_adaptable(arch, dropout=dropout, drop_path=drop_path, **options)
    return model, torchvision_models.adaptable(model)


def _convert_keras(state: State, model: nn.Module) -> State:
    """Lets the first layer, which rescales each channel, take the mean over the channels it knew."""
    for name, own in model.state_dict().items():
        if ".rescale." in name and name in state and state[name].shape != own.shape:
            state[name] = state[name].mean(0, keepdim=True).expand(own.shape)
    return state


def _is_timm(arch: str) -> bool:
    return arch not in OWN and not arch.startswith((TORCHVISION_PREFIX, KERAS_PREFIX))


def _trained_input(config: Hyperparameters) -> tuple[int | None, list[float], list[float], str] | None:
    """What the weights that the network starts from saw, the size where it is to be kept; None without weights."""
    start = None if config.weights is None else find_weights(config.weights, arch=config.arch)
    if start is not None and start.description is not None:
        seen = start.description["input"]
        return int(seen["size"]), list(seen["mean"]), list(seen["std"]), str(seen["interpolation"])
    if (start is None and not config.pretrained) or config.arch in OWN:
        return None
    size, mean, std, interpolation = _published_input(config.arch)
    return (size if config.pretrained else None), mean, std, interpolation


def _published_input(arch: str) -> tuple[int, list[float], list[float], str]:
    if arch.startswith(TORCHVISION_PREFIX):
        return torchvision_models.input_of(arch.removeprefix(TORCHVISION_PREFIX))
    if arch.startswith(KERAS_PREFIX):
        from trainables import keras_models

        size, mean, std, interpolation = keras_models.input_spec_of(arch.removeprefix(KERAS_PREFIX))
        return size, mean, std, interpolation
    return timm_models.input_of(arch)


def _check_known(arch: str, known: list[str]) -> None:
    if arch not in known:
        near = nearest(arch, known)
        hint = f"did you mean {' or '.join(near)}?" if near else "the library's documentation lists them"
        raise ModelError(f"arch: unknown architecture {arch!r}; {hint}")


def _no_weights(arch: str, error: Exception) -> ModelError:
    wanted, cache = "them", "where Keras keeps them, in models/ below $KERAS_HOME"
    if arch.startswith(TORCHVISION_PREFIX):
        wanted = torchvision_models.weights_address(arch.removeprefix(TORCHVISION_PREFIX))
        cache = "in checkpoints/ below $TORCH_HOME/hub"
    elif _is_timm(arch):
        wanted, cache = timm_models.weights_address(arch), "in the cache that HF_HUB_CACHE names"
    return ModelError(
        f"{arch}: its pretrained weights are neither cached nor reachable, wanted {wanted} ({first_line(error)}); "
        f"connect this node to the network, put them {cache}, or set pretrained: false and give a file of "
        "weights, weights: PATH"
    )


def _unfit(arch: str, image_size: int, in_chans: int, error: Exception) -> ModelError:
    return ModelError(
        f"{arch}: cannot be built for images of {image_size}x{image_size} px and {in_chans} channel(s): "
        f"{first_line(error)}; set a larger input_size (32 for most convolutional networks, a multiple of the patch "
        "size for transformers), or choose another architecture"
    )
