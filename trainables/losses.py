"""What is minimised: losses as sums over images, so that any split into batches or ranks gives the same mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.errors import ConfigError
from trainables.hyperparameters import Hyperparameters
from trainables.imbalance import class_weights
from trainables.metric_names import LabelKind

# Takes logits, (B, num_classes) of any floating type, and targets: class indices, (B,) int64, or (B, num_classes) with
# values in [0, 1]: shares of the classes that sum to 1, or for multi-label data one answer a label.
# Returns the sum over the images, a float32 scalar; computed in float32.
Loss = Callable[[Tensor, Tensor], Tensor]

# Below it (1 - p) ** gamma has no usable slope in float32; it stands where p has been rounded to 1.
SMALLEST_MISS = 1e-7


def build_loss(config: Hyperparameters, *, labels: np.ndarray, num_classes: int, device: torch.device) -> Loss:
    """The configured loss, with its class weights counted on the training split.

    Cross-entropy and focal loss weight the term of each class, also of soft targets. One-vs-all BCE weights a whole
    image by its class (by the mean weight of its classes, for soft targets), as arXiv:1901.05555 does. Multi-label
    losses weight the presence and the absence of each label.

    Args:
        labels: of the training split: (N,) int64, or (N, num_classes) of 0 and 1 for multi-label data.

    Raises:
        ConfigError: if the loss is not defined for such labels.
    """
    multi_label = labels.ndim == 2
    check_loss(config, "multilabel" if multi_label else "multiclass")
    found = class_weights(labels, num_classes=num_classes, config=config)
    weights = None if found is None else torch.from_numpy(found).to(device=device, dtype=torch.float32)
    smoothing = config.label_smoothing
    if multi_label:
        gamma = config.focal_gamma if config.loss == "focal" else 0.0
        return partial(multi_label_sum, gamma=gamma, label_smoothing=smoothing, weights=weights)
    if config.loss == "focal":
        return partial(focal_sum, gamma=config.focal_gamma, label_smoothing=smoothing, weights=weights)
    if config.loss == "bce":
        return partial(one_vs_all_sum, label_smoothing=smoothing, weights=weights)
    return partial(cross_entropy_sum, label_smoothing=smoothing, weights=weights)


def check_loss(config: Hyperparameters, kind: LabelKind) -> None:
    """Whether the loss is defined for such labels.

    Raises:
        ConfigError: naming those that are.
    """
    if kind == "multilabel" and config.loss == "cross_entropy":
        raise ConfigError(
            "space.loss: cross_entropy is for images of one class each, these have several labels or none "
            "(multi-label); use auto, bce or focal"
        )


def plain_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """The loss of each image without smoothing, weights or focus: what is validated, whatever was minimised.

    Args:
        logits: (B, num_classes), any floating type.
        targets: class indices, (B,) int64, for cross-entropy; or answers, (B, num_classes), for the mean over the
            labels of binary cross-entropy.

    Returns:
        (B,), float32.
    """
    if targets.ndim == 1:
        return F.cross_entropy(logits.float(), targets, reduction="none")
    return F.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="none").mean(dim=1)


def cross_entropy_sum(
    logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy.

    Args:
        label_smoothing: weight spread evenly over all classes, in [0, 1).
        weights: of each class's term, (num_classes,).

    Source: label smoothing, arXiv:1512.00567.
    """
    targets = targets.float() if targets.ndim == 2 else targets
    return F.cross_entropy(logits.float(), targets, weight=weights, reduction="sum", label_smoothing=label_smoothing)


def focal_sum(
    logits: Tensor, targets: Tensor, *, gamma: float, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Focal loss over a softmax: -sum_c w_c t_c (1 - p_c)^gamma log p_c; cross-entropy where gamma is 0.

    Linear in the targets t, so a mixed image costs the mix of what its parts would.

    Source: arXiv:1708.02002, equation 5 with its alpha as class weights.
    """
    log_p = F.log_softmax(logits.float(), dim=1)
    shares = _shares(targets, like=log_p)
    terms = _smoothed(shares, label_smoothing, towards=1 / shares.shape[1])
    terms = terms if weights is None else terms * weights
    miss = (-torch.expm1(log_p)).clamp_min(SMALLEST_MISS)
    return -(terms * miss.pow(gamma) * log_p).sum()


def one_vs_all_sum(
    logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy of each class against all others, summed over the classes of an image.

    Summed, not averaged: the gradient of a logit then has the size it has in cross-entropy, sigmoid(z) - t beside
    softmax(z) - t, so that one range of learning rates suits both. log(num_classes - 1) is taken off the logits, so
    that an undecided network begins at p = 1 / num_classes rather than 1/2 and need not first unlearn every class,
    which costs epochs; as all logits move alike, softmax and predictions do not change.

    Args:
        label_smoothing: weight spread evenly over all classes, in [0, 1).
        weights: of an image of each class, (num_classes,).

    Source: arXiv:2110.00476 (one-vs-all training with smoothed and mixed targets), arXiv:1901.05555 (weights),
    arXiv:1708.02002, section 3.3 (a rare positive's prior at the start).
    """
    z = logits.float() - math.log(max(1, logits.shape[1] - 1))
    shares = _shares(targets, like=z)
    smooth = _smoothed(shares, label_smoothing, towards=1 / shares.shape[1])
    losses = F.binary_cross_entropy_with_logits(z, smooth, reduction="none").sum(dim=1)
    return losses.sum() if weights is None else (losses * (shares @ weights)).sum()


def multi_label_sum(
    logits: Tensor, targets: Tensor, *, gamma: float = 0.0, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy of every label, averaged over the labels of an image; focal where gamma is above 0.

    Args:
        targets: (B, num_labels), 0 to 1.
        gamma: focusing parameter; 0 is plain binary cross-entropy.
        label_smoothing: how far targets move towards 1/2, in [0, 1); 1 would be all the way.
        weights: of each label's absence and of its presence, (2, num_labels).

    Source: arXiv:1708.02002, equation 5.
    """
    z = logits.float()
    t = _smoothed(targets.to(z.dtype), label_smoothing, towards=0.5)
    if gamma == 0 and weights is None:
        return F.binary_cross_entropy_with_logits(z, t, reduction="none").mean(dim=1).sum()
    present, absent = F.softplus(-z), F.softplus(z)  # -log p, -log(1 - p)
    if gamma > 0:  # in logarithms: powers of a probability that was rounded to 0 have no slope
        present, absent = present * torch.exp(-gamma * absent), absent * torch.exp(-gamma * present)
    if weights is not None:
        absent, present = absent * weights[0], present * weights[1]
    return (t * present + (1 - t) * absent).mean(dim=1).sum()


def _shares(targets: Tensor, *, like: Tensor) -> Tensor:
    """Targets as shares of the classes, (B, num_classes); one-hot for class indices."""
    if targets.ndim == 2:
        return targets.to(like.dtype)
    return torch.zeros_like(like).scatter_(1, targets[:, None], 1.0)


def _smoothed(targets: Tensor, label_smoothing: float, *, towards: float) -> Tensor:
    return targets if label_smoothing == 0 else targets * (1 - label_smoothing) + label_smoothing * towards
