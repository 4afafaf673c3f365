"""How do weights move? Optimizers over the parameters that train, with decay and learning rate by group."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from fnmatch import fnmatch
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from trainables.config import TrialConfig
from trainables.optimizer_names import TIMM_PREFIX, check_optimizer

Stages = Sequence[Sequence[str]]
Group = dict[str, Any]

_HAVE_FUSED = (SGD, Adam, AdamW, Adagrad)
_FUSED_DEVICES = ("cpu", "cuda")
# What torchvision's own recipes spare, beside the one-dimensional parameters, and its models do not name themselves.
_SPARED = re.compile(r"(^|\.)(class_token|pos_embedding|relative_position_bias_table|layer_scale)$")


def build_optimizer(model: nn.Module, stages: Stages, config: TrialConfig, *, device: torch.device) -> Optimizer:
    """The configured optimizer over the parameters that train now.

    Biases, normalisation and position embeddings are exempt from weight decay. Every group has an `lr_scale`: 1 for
    the classifier's stage and `layer_decay` times that of the stage above for each below.

    Args:
        stages: parameter names from the input to the classifier, as `model_stages` gives them.

    Raises:
        ConfigError: if there is no such optimizer, or the training loop cannot drive it.

    Source: exempting biases and norms, arXiv:1812.01187 (section 3.1); layer-wise rates, arXiv:2003.10555.
    """
    check_optimizer(config.optimizer)
    return _create(_parameter_groups(model, stages, config, known=()), config, device=device)


def extend_optimizer(optimizer: Optimizer, model: nn.Module, stages: Stages, config: TrialConfig) -> None:
    """Adds what has become trainable since the optimizer was built or last extended.

    The groups depend only on what trains now, not on how often this was called: an optimizer that is built and
    extended again has the groups that it had when its state was saved.
    """
    known = set(chain.from_iterable(group["params"] for group in optimizer.param_groups))
    groups = _parameter_groups(model, stages, config, known=known)
    if not groups:
        return
    addition = _create(groups, config, device=groups[0]["params"][0].device)
    for group in addition.param_groups:
        optimizer.add_param_group(group)
    optimizer.state.update(addition.state)  # Adagrad makes its state when it is built, not when it first steps


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Sets the learning rate of every group, `lr` times its `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def exempt_from_decay(model: nn.Module) -> set[str]:
    """Names of the parameters that weight decay leaves alone.

    These are vectors (biases, normalisation), position embeddings and the like, and what the model itself names in
    `no_weight_decay`, where patterns are allowed as in timm.
    """
    named = getattr(model, "no_weight_decay", None)
    patterns: Collection[str] = named() if callable(named) else ()
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim < 2
        or name.endswith(".bias")
        or _SPARED.search(name)
        or any(fnmatch(name, pattern) for pattern in patterns)
    }


def _parameter_groups(
    model: nn.Module, stages: Stages, config: TrialConfig, *, known: Collection[Tensor]
) -> list[Group]:
    """Groups of the trainable parameters that are not known yet, from the classifier downwards."""
    parameters = dict(model.named_parameters())
    exempt = exempt_from_decay(model)
    if config.finetune != "progressive" and config.layer_decay == 1:
        stages = [tuple(chain.from_iterable(stages))]  # few large groups are few kernels
    groups: list[Group] = []
    for above, stage in enumerate(reversed(stages)):
        lr_scale = config.layer_decay**above
        names = [name for name in stage if parameters[name].requires_grad and parameters[name] not in known]
        for weight_decay, members in (
            (config.weight_decay, [parameters[name] for name in names if name not in exempt]),
            (0.0, [parameters[name] for name in names if name in exempt]),
        ):
            if members:
                groups.append(
                    {
                        "params": members,
                        "weight_decay": weight_decay,
                        "lr": config.lr * lr_scale,
                        "lr_scale": lr_scale,
                    }
                )
    return groups


def _create(groups: list[Group], config: TrialConfig, *, device: torch.device) -> Optimizer:
    create = _CREATE.get(config.optimizer, _timm)
    return create(groups, config, fused=device.type in _FUSED_DEVICES)


def _survives_skipped_steps(kind: type[Optimizer], config: TrialConfig) -> bool:
    """Whether the fused step may be taken: that of SGD leaves momentum undefined where loss scaling skips the first."""
    return kind is not SGD or config.precision != "fp16"


def _sgd(groups: list[Group], config: TrialConfig, *, fused: bool) -> Optimizer:
    nesterov = config.momentum > 0
    fused = fused and _survives_skipped_steps(SGD, config)
    return SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=fused)


def _adamw(groups: list[Group], config: TrialConfig, *, fused: bool) -> Optimizer:
    return AdamW(groups, lr=config.lr, fused=fused)


def _rmsprop(groups: list[Group], config: TrialConfig, *, fused: bool) -> Optimizer:  # noqa: ARG001 (it has none)
    return RMSprop(groups, lr=config.lr, momentum=config.momentum)


def _timm(groups: list[Group], config: TrialConfig, *, fused: bool) -> Optimizer:
    from timm.optim import create_optimizer_v2, get_optimizer_class, get_optimizer_info

    name = config.optimizer.removeprefix(TIMM_PREFIX)
    options: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay, "momentum": config.momentum}
    kind = get_optimizer_class(name, bind_defaults=False)
    if kind in _HAVE_FUSED:
        options["fused"] = fused and _survives_skipped_steps(kind, config)
    info = get_optimizer_info(name)
    if config.momentum == 0 and info.has_momentum and "nesterov" in (info.defaults or {}):
        options["nesterov"] = False  # refused without momentum
    optimizer: Optimizer = create_optimizer_v2(groups, opt=name, **options)
    for group in optimizer.param_groups:
        if "max_lr_snapshot" in group:  # corrected weight decay divides by the peak, which is the group's own
            group["max_lr_snapshot"] = group["lr"]
    return optimizer


_CREATE: dict[str, Callable[..., Optimizer]] = {"sgd": _sgd, "adamw": _adamw, "rmsprop": _rmsprop}
