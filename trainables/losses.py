"""What is minimised: losses as sums over images, so that any split into batches or ranks gives the same mean."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def cross_entropy_sum(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy summed over the images of a batch.

    Args:
        logits: (B, num_classes), any floating type; computed in float32.
        labels: class indices, (B,), int64.
        label_smoothing: weight spread evenly over all classes, in [0, 1).

    Returns:
        A float32 scalar.

    Source: label smoothing, arXiv:1512.00567.
    """
    return F.cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=label_smoothing)
