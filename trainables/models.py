"""Which network does an architecture name mean? Heads, input channels, image size, dropout and weights adapted."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from trainables import torchvision_models
from trainables.config import Hyperparameters
from trainables.errors import ModelError
from trainables.nearest import nearest
from trainables.small_cnn import SmallCNN

SMALL_CNN = "small_cnn"
_CONNECT_TIMEOUT_S = 10.0

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


def build_model(config: Hyperparameters, *, num_classes: int, in_chans: int, image_size: int) -> nn.Module:
    """The configured network: (B, in_chans, image_size, image_size) float to (B, num_classes) scores.

    New weights are drawn from torch's global generator, which the caller seeds.

    Raises:
        ModelError: if the architecture is unknown, cannot be built for such images, or its weights are out of reach.
    """
    check_arch(config.arch, pretrained=config.pretrained)
    options = {"num_classes": num_classes, "in_chans": in_chans, "image_size": image_size}
    try:
        if not config.pretrained:
            return _create(config, **options)
        return _create_pretrained(config, **options)
    except _SHAPE_ERRORS as error:
        raise _unfit(config.arch, image_size, in_chans, error) from error


def check_model(config: Hyperparameters, *, num_classes: int, in_chans: int, image_size: int) -> int:
    """Builds the network without memory or weights and passes two images through its shapes; downloads nothing.

    Returns:
        The number of parameters.

    Raises:
        ModelError: if the architecture is unknown, has no pretrained weights where they are wanted, or the images
            do not fit it.
    """
    check_arch(config.arch, pretrained=config.pretrained)
    try:
        with torch.device("meta"), torch.no_grad():
            model = _create(
                config.model_copy(update={"pretrained": False}),
                num_classes=num_classes,
                in_chans=in_chans,
                image_size=image_size,
            )
            scores = model(torch.empty(2, in_chans, image_size, image_size))
    except _SHAPE_ERRORS as error:
        raise _unfit(config.arch, image_size, in_chans, error) from error
    if not isinstance(scores, Tensor) or scores.shape != (2, num_classes):
        found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ModelError(
            f"{config.arch}: must give scores of shape (2, {num_classes}), got {found}; "
            "choose another architecture, this one is no plain classifier"
        )
    return count_parameters(model)


def check_arch(arch: str, *, pretrained: bool) -> None:
    """Whether an architecture exists, and has pretrained weights where they are wanted; costs no building.

    Raises:
        ModelError: naming the nearest architectures.
    """
    if arch == SMALL_CNN:
        if pretrained:
            raise ModelError(f"{arch}: it has no pretrained weights; set pretrained: false, or choose a timm name")
        return
    if arch.startswith(torchvision_models.PREFIX):
        known = [torchvision_models.PREFIX + name for name in torchvision_models.known_names()]
        if arch not in known:
            raise _unknown(arch, known)
        return
    import timm

    if not timm.is_model(arch):
        raise _unknown(arch, [SMALL_CNN, *timm.list_models()])
    name, _, tag = arch.partition(".")
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{name}.*")]
    if tag and tag not in tags:
        have = f"use {name} alone or with one of: {', '.join(tags)}" if tags else f"use {name}"
        raise ModelError(f"{arch}: {name} has no pretrained weights named {tag!r}; {have}")
    if pretrained and not timm.is_model_pretrained(arch):
        raise ModelError(f"{arch}: timm has no pretrained weights for it; set pretrained: false, or choose another")


def count_parameters(model: nn.Module) -> int:
    """Number of scalars in the trainable and frozen parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def input_statistics(
    config: Hyperparameters, data_mean_std: tuple[list[float], list[float]], in_chans: int
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel in [0, 1] to normalise by.

    Pretrained networks get those of their weights, the average over RGB for gray images; all others those of the data.
    """
    if not config.pretrained:
        return data_mean_std
    if config.arch.startswith(torchvision_models.PREFIX):
        mean, std = torchvision_models.input_statistics(config.arch.removeprefix(torchvision_models.PREFIX))
    else:
        import timm

        pretrained = timm.get_pretrained_cfg(config.arch)
        mean, std = list(pretrained.mean), list(pretrained.std)
    if len(mean) == in_chans:
        return mean, std
    return [sum(mean) / len(mean)] * in_chans, [sum(std) / len(std)] * in_chans


def split_decay_parameters(model: nn.Module) -> tuple[list[Parameter], list[Parameter]]:
    """Trainable parameters that weight decay applies to, and the others.

    Exempt are vectors (biases, normalisation), and what the model itself names in `no_weight_decay`, such as position
    embeddings.
    """
    named = getattr(model, "no_weight_decay", None)
    spared: set[str] = set(named()) if callable(named) else set()
    decayed: list[Parameter] = []
    exempt: list[Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            spare = parameter.ndim < 2 or name.endswith(".bias") or name in spared
            (exempt if spare else decayed).append(parameter)
    return decayed, exempt


def _create(config: Hyperparameters, *, num_classes: int, in_chans: int, image_size: int) -> nn.Module:
    if config.arch == SMALL_CNN:
        return SmallCNN(num_classes=num_classes, in_chans=in_chans, image_size=image_size, dropout=config.dropout)
    if config.arch.startswith(torchvision_models.PREFIX):
        return torchvision_models.build(
            config.arch.removeprefix(torchvision_models.PREFIX),
            pretrained=config.pretrained,
            num_classes=num_classes,
            in_chans=in_chans,
            image_size=image_size,
            dropout=config.dropout,
        )
    import timm

    options: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_chans, "drop_rate": config.dropout}
    pretrained_cfg = timm.get_pretrained_cfg(config.arch)
    if pretrained_cfg is not None and pretrained_cfg.fixed_input_size:
        options["img_size"] = image_size
    model: nn.Module = timm.create_model(config.arch, pretrained=config.pretrained, **options)
    return model


def _create_pretrained(config: Hyperparameters, **options: int) -> nn.Module:
    """Takes cached weights without asking the network; only where there are none, the hub, if it can be reached.

    Left to itself huggingface_hub retries an unreachable hub for 47 s, and asks it even for what is cached.
    """
    state = torch.get_rng_state()
    try:
        with _hub_offline(), _socket_timeout():
            return _create(config, **options)
    except OSError as error:
        if config.arch.startswith(torchvision_models.PREFIX) or not _hub_reachable():
            raise _no_weights(config.arch, error) from error
    torch.set_rng_state(state)  # the failed attempt drew from it
    try:
        return _create(config, **options)
    except OSError as error:
        raise _no_weights(config.arch, error) from error


@contextmanager
def _hub_offline() -> Iterator[None]:
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def _socket_timeout() -> Iterator[None]:
    """torch.hub opens addresses without a limit of its own: a silent network would hold it for minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_CONNECT_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _hub_reachable() -> bool:
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:  # the user said so
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=_CONNECT_TIMEOUT_S)
    except Exception:  # whatever its HTTP client raises: it cannot be reached
        return False
    return True


def _no_weights(arch: str, error: Exception) -> ModelError:
    if arch.startswith(torchvision_models.PREFIX):
        wanted = torchvision_models.weights_address(arch.removeprefix(torchvision_models.PREFIX))
        cache = "in checkpoints/ below $TORCH_HOME/hub"
    else:
        import timm

        pretrained = timm.get_pretrained_cfg(arch)
        wanted = pretrained.hf_hub_id or pretrained.url
        cache = "in the cache that HF_HUB_CACHE names"
    cause = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ModelError(
        f"{arch}: its pretrained weights are neither cached nor reachable, wanted {wanted} ({cause}); "
        f"connect this node to the network, put them {cache}, or set pretrained: false"
    )


def _unknown(arch: str, known: list[str]) -> ModelError:
    near = nearest(arch, known)
    hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists them"
    return ModelError(f"arch: unknown architecture {arch!r}; {hint}")


def _unfit(arch: str, image_size: int, in_chans: int, error: Exception) -> ModelError:
    cause = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ModelError(
        f"{arch}: cannot be built for images of {image_size}x{image_size} px and {in_chans} channel(s): {cause}; "
        "set a larger task.data.image_size (32 for most convolutional networks, a multiple of the patch size for "
        "transformers), or choose another architecture"
    )
