"""How good is a model? Sums over images, divided once, exact for any number of workers."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from trainables.batches import Normalizer
from trainables.losses import cross_entropy_sum
from trainables.precision import Precision
from trainables.runtime import Runtime


def correct_in_top(logits: Tensor, labels: Tensor, *, k: int) -> Tensor:
    """How many images have their label among the k highest logits; k above the number of classes counts all.

    Args:
        logits: (B, num_classes).
        labels: (B,), int64.
    """
    k = min(k, logits.shape[1])
    return (logits.topk(k, dim=1).indices == labels[:, None]).any(dim=1).sum()


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    normalize: Normalizer,
    precision: Precision,
    runtime: Runtime,
) -> dict[str, float]:
    """Loss, top-1 and top-5 over all images of all ranks.

    Returns:
        `loss` (mean cross-entropy without label smoothing), `top1`, `top5` in [0, 1], `count`.
    """
    model.eval()
    sums = torch.zeros(4, dtype=torch.float64, device=runtime.device)
    for images, labels in batches:
        with precision.autocast():
            logits = model(normalize(images))
        sums += torch.stack(
            [
                cross_entropy_sum(logits, labels).double(),
                correct_in_top(logits, labels, k=1).double(),
                correct_in_top(logits, labels, k=5).double(),
                torch.tensor(len(labels), dtype=torch.float64, device=sums.device),
            ]
        )
    loss, top1, top5, count = runtime.sum_over_ranks(sums).tolist()
    return {"loss": loss / count, "top1": top1 / count, "top5": top5 / count, "count": count}


@torch.inference_mode()
def predict_probabilities(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, normalize: Normalizer, precision: Precision
) -> tuple[Tensor, Tensor]:
    """Class probabilities and labels of every image, on the CPU.

    Returns:
        (N, num_classes) float32 whose rows sum to 1, and (N,) int64.
    """
    model.eval()
    probabilities, all_labels = [], []
    for images, labels in batches:
        with precision.autocast():
            logits = model(normalize(images))
        probabilities.append(logits.float().softmax(dim=1).cpu())
        all_labels.append(labels.cpu())
    return torch.cat(probabilities), torch.cat(all_labels)
