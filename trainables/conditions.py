"""Which hyperparameter means something only beside certain others? A space leaves it out of the other trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trainables.architectures import takes_drop_path
from trainables.hyperparameters import BUILTIN_AUGMENTATIONS, Hyperparameters
from trainables.optimizer_names import uses_momentum

Params = Mapping[str, Any]
_TENSOR_POLICIES = tuple(name for name in BUILTIN_AUGMENTATIONS if name != "none")


@dataclass(frozen=True)
class Condition:
    """When a hyperparameter has an effect.

    Attributes:
        parents: the hyperparameters that decide it.
        holds: whether it has one beside these values; all parents are given.
        words: the same for a person, after "only where".
    """

    parents: tuple[str, ...]
    holds: Callable[[Params], bool]
    words: str


def _one_of(parent: str, *values: Any) -> Condition:
    words = f"{parent} is {' or '.join(map(str, values))}"
    return Condition((parent,), lambda params: params[parent] in values, words)


def _above_zero(*parents: str) -> Condition:
    words = f"{' or '.join(parents)} is above 0"
    return Condition(parents, lambda params: any(params[parent] > 0 for parent in parents), words)


CONDITIONS: Mapping[str, Condition] = {
    "drop_path": Condition(
        ("arch",), lambda params: takes_drop_path(str(params["arch"])), "arch has residual blocks that can be skipped"
    ),
    **{
        name: _one_of("arch", "cnn")
        for name in ("cnn_stages", "cnn_depth", "cnn_width", "cnn_kernel", "cnn_norm", "cnn_activation")
    },
    "finetune_stages": _one_of("finetune", "last_stages"),
    "unfreeze_epochs": _one_of("finetune", "progressive"),
    "momentum": Condition(
        ("optimizer",), lambda params: uses_momentum(str(params["optimizer"])), "optimizer is sgd, rmsprop or their kin"
    ),
    "warmup_epochs": Condition(
        ("lr_schedule",), lambda params: params["lr_schedule"] != "one_cycle", "lr_schedule is not one_cycle"
    ),
    "step_epochs": _one_of("lr_schedule", "step"),
    "lr_drop": _one_of("lr_schedule", "step", "plateau"),
    "plateau_patience": _one_of("lr_schedule", "plateau"),
    "focal_gamma": _one_of("loss", "focal"),
    "effective_beta": _one_of("class_weights", "effective"),
    **{name: _one_of("augment", *_TENSOR_POLICIES) for name in ("crop", "hflip", "vflip", "rotation", "color_jitter")},
    "crop_padding": Condition(
        ("augment", "crop"),
        lambda params: params["augment"] in _TENSOR_POLICIES and params["crop"] == "pad",
        "crop is pad",
    ),
    "crop_scale": Condition(
        ("augment", "crop"),
        lambda params: params["augment"] in _TENSOR_POLICIES and params["crop"] == "resized",
        "crop is resized",
    ),
    "randaugment_num_ops": _one_of("augment", "randaugment"),
    "randaugment_magnitude": _one_of("augment", "randaugment"),
    "augmix_severity": _one_of("augment", "augmix"),
    "augmix_width": _one_of("augment", "augmix"),
    "mix_prob": _above_zero("mixup_alpha", "cutmix_alpha"),
}


def has_effect(name: str, params: Params) -> bool:
    """Whether a hyperparameter matters beside others; those not given have their defaults."""
    condition = CONDITIONS.get(name)
    if condition is None:
        return True
    defaults = Hyperparameters.model_fields
    return condition.holds({each: params.get(each, defaults[each].default) for each in condition.parents})
