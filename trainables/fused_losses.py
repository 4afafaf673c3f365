"""The losses of all slots: cross-entropy and focal loss in one piece, the others slot by slot."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.losses import SMALLEST_MISS, Loss, cross_entropy_sum, focal_sum


class FusedLoss:
    """The loss of each slot, with its own kind, smoothing, focus and class weights.

    Args:
        losses: of the slots, as `build_loss` makes them.
    """

    def __init__(self, losses: Sequence[Loss], *, device: torch.device) -> None:
        self._losses = losses
        kept = [each for each in losses if isinstance(each, partial) and each.func in (cross_entropy_sum, focal_sum)]
        self._over_softmax = len(kept) == len(losses)
        if not self._over_softmax:
            return
        options = [each.keywords for each in kept]

        def column(name: str) -> Tensor:
            return torch.tensor([each.get(name, 0.0) for each in options], device=device)[:, None, None]

        self._smoothing, self._gamma = column("label_smoothing"), column("gamma")
        self._focuses = any(each.get("gamma", 0.0) > 0 for each in options)
        weights = [each["weights"] for each in options]
        shape = next((each.shape for each in weights if each is not None), None)
        self._weights = None
        if shape is not None:
            ones = torch.ones(shape, device=device)
            self._weights = torch.stack([ones if each is None else each for each in weights])[:, None]

    def __call__(self, logits: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """Sums over the images of each slot.

        Args:
            logits: (num_slots, B, num_classes).
            targets: of each slot, as `Loss` takes them.

        Returns:
            (num_slots,) float32.
        """
        if not self._over_softmax:
            return torch.stack([loss(*own) for loss, *own in zip(self._losses, logits, targets, strict=True)])
        log_p = F.log_softmax(logits.float(), dim=2)
        terms = _shares(targets, num_classes=log_p.shape[2])
        terms = terms * (1 - self._smoothing) + self._smoothing / log_p.shape[2]
        if self._weights is not None:
            terms = terms * self._weights
        if self._focuses:
            miss = (-torch.expm1(log_p)).clamp_min(SMALLEST_MISS)
            terms = terms * miss.pow(self._gamma)
        return -(terms * log_p).sum(dim=(1, 2))


def _shares(targets: Sequence[Tensor], *, num_classes: int) -> Tensor:
    """Targets as shares of the classes, (num_slots, B, num_classes) float32; one-hot for class indices."""
    if all(each.ndim == 1 for each in targets):
        return F.one_hot(torch.stack(list(targets)), num_classes).float()
    return torch.stack([(F.one_hot(each, num_classes) if each.ndim == 1 else each).float() for each in targets])
