"""How weights move: optimizers and learning-rate schedules."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from trainables.config import TrialConfig
from trainables.models import split_decay_parameters


def build_optimizer(model: nn.Module, config: TrialConfig, *, device: torch.device) -> Optimizer:
    """The configured optimizer over the trainable parameters; biases and norms are exempt from weight decay.

    Source: exempting biases and norms, arXiv:1812.01187 (section 3.1).
    """
    decayed, exempt = split_decay_parameters(model)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": exempt, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = device.type in ("cpu", "cuda")
    if config.optimizer == "sgd":
        nesterov = config.momentum > 0
        return SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=fused)
    return AdamW(groups, lr=config.lr, fused=fused)


def lr_factor(epoch: float, config: TrialConfig) -> float:
    """The learning rate at a moment of training, as a fraction of the peak.

    The schedule spans `max_epochs` whenever the trial may be stopped, so that a rung previews the full run fairly.

    Args:
        epoch: epochs done, fractional, in [0, max_epochs].

    Returns:
        A factor in [0, 1]: linear warm-up, then constant or half a cosine to 0.

    Source: cosine annealing, arXiv:1608.03983; warm-up, arXiv:1706.02677.
    """
    if epoch < config.warmup_epochs:
        return epoch / config.warmup_epochs
    if config.lr_schedule == "constant":
        return 1.0
    progress = (epoch - config.warmup_epochs) / (config.max_epochs - config.warmup_epochs)
    return 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Sets the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
