"""torchvision's classifiers by name, with the head, the input channels and the dropout that a task needs."""

from __future__ import annotations

from typing import Any

from torch import nn

from trainables.errors import ModelError

PREFIX = "torchvision/"
_WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")


def known_names() -> list[str]:
    """Every classification model, without the prefix."""
    from torchvision import models

    return list(models.list_models(module=models))


def build(
    name: str, *, pretrained: bool, num_classes: int, in_chans: int, image_size: int, dropout: float
) -> nn.Module:
    """A classifier of torchvision, adapted to the task.

    The layer that gives the scores, the last linear layer or convolution, is replaced by a new one. GoogLeNet and
    Inception v3 lose their auxiliary classifiers, so that they return plain scores while training too; with them
    goes the auxiliary loss of arXiv:1409.4842, which helped the gradient reach their lower half.

    Args:
        name: without the prefix.
        image_size: side in pixels; vision transformers are built for it, all others take any.
        dropout: probability of the dropout layers of the classifier, or of a new one before its last layer.

    Raises:
        ModelError: if a vision transformer's pretrained weights are for another image size.
        OSError: if the weights are neither cached nor reachable.
    """
    from torchvision import models

    weights = models.get_model_weights(name).DEFAULT if pretrained else None
    options: dict[str, Any] = {"weights": weights, "progress": False}
    if name.startswith("vit_"):
        options["image_size"] = _vit_size(name, weights, image_size)
    if name in _WITH_AUXILIARY_HEADS:
        options["init_weights"] = not pretrained  # it warns when left open
        options |= {} if pretrained else {"aux_logits": False}  # the pretrained state has them: dropped below
    model: nn.Module = models.get_model_builder(name)(**options)
    if name in _WITH_AUXILIARY_HEADS:
        _drop_auxiliary_heads(model)
    _replace_head(model, num_classes=num_classes, dropout=dropout)
    _adapt_first_convolution(model, in_chans)
    return model


def input_statistics(name: str) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per RGB channel in [0, 1] of the images that the pretrained weights saw."""
    from torchvision import models

    preset = models.get_model_weights(name).DEFAULT.transforms()
    return list(preset.mean), list(preset.std)


def weights_address(name: str) -> str:
    """Where the pretrained weights are published."""
    from torchvision import models

    return str(models.get_model_weights(name).DEFAULT.url)


def _vit_size(name: str, weights: Any, image_size: int) -> int:
    trained = image_size if weights is None else int(weights.meta["min_size"][0])
    if trained != image_size:
        raise ModelError(
            f"{PREFIX}{name}: its pretrained weights are for images of {trained} px, got {image_size} px; "
            f"set task.data.image_size: {trained}, or use timm's vision transformers, which resample theirs"
        )
    return image_size


def _drop_auxiliary_heads(model: nn.Module) -> None:
    for name in ("aux1", "aux2", "AuxLogits"):
        if hasattr(model, name):
            setattr(model, name, None)
    # Set by hand as their type is a plain bool, which nn.Module does not declare.
    model.__dict__["aux_logits"] = False
    # Its own change of normalisation: images come as the caller normalised them.
    model.__dict__["transform_input"] = False


def _replace_head(model: nn.Module, *, num_classes: int, dropout: float) -> None:
    name, old = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    new: nn.Module
    if isinstance(old, nn.Conv2d):  # SqueezeNet scores every place and averages
        new = nn.Conv2d(old.in_channels, num_classes, kernel_size=1)
    else:
        new = nn.Linear(old.in_features, num_classes)
    if not _set_dropout(model, name.split(".")[0], dropout) and dropout > 0:
        new = nn.Sequential(nn.Dropout(dropout), new)
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)
    if hasattr(model, "num_classes"):
        model.__dict__["num_classes"] = num_classes


def _set_dropout(model: nn.Module, classifier: str, dropout: float) -> bool:
    """Sets the dropout layers of the classifier; whether it has any."""
    layers = [layer for layer in model.get_submodule(classifier).modules() if isinstance(layer, nn.Dropout)]
    beside = getattr(model, "dropout", None)  # where GoogLeNet and Inception keep theirs
    if isinstance(beside, nn.Dropout):
        layers.append(beside)
    for layer in layers:
        layer.p = dropout
    return bool(layers)


def _adapt_first_convolution(model: nn.Module, in_chans: int) -> None:
    """Lets the first convolution take other channels than RGB, its response to gray images kept.

    Source: timm's adapt_input_conv: summed for one channel, repeated and rescaled for more.
    """
    if in_chans == 3:
        return
    from timm.models import adapt_input_conv

    old = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    old.weight = nn.Parameter(adapt_input_conv(in_chans, old.weight.detach()))
    old.in_channels = in_chans
