"""How good is a model? Every image counts once, exactly, for any number of workers.

Each rank judges its own images; what was found is brought together, a row an image, before anything is averaged. So
all metrics are the same to the last bit however the images were shared out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from trainables.losses import plain_losses
from trainables.metric_names import LabelKind, metrics_of
from trainables.precision import Precision
from trainables.runtime import Runtime

NUM_CALIBRATION_BINS = 15

Batches = Iterable[tuple[Tensor, Tensor]]
Preprocess = Callable[[Tensor], Tensor]


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Batches,
    *,
    num_images: int,
    kind: LabelKind,
    num_classes: int,
    preprocess: Preprocess,
    precision: Precision,
    runtime: Runtime,
) -> dict[str, float]:
    """The metrics of a split, over the images of all ranks. Leaves the model in evaluation mode.

    Args:
        batches: images and targets of this rank's images, which are those at rank::world_size of the split, in order;
            targets are classes, (B,) int64, or for multi-label data 0 and 1, (B, num_classes).
        num_images: images of the whole split.

    Returns:
        What `metrics_of(kind)` names, without the prefix `val_`, and `count`. `loss` is `plain_losses`' mean. Averages
        over classes are scikit-learn's with zero_division=0: over the classes that occur as label or prediction. A
        label is predicted where its probability is at least 1/2. `auroc` and `map` leave out labels that no image
        or every image has; where that leaves none they are 0.5, as by chance, and 0. Where the loss of an image is not
        finite, every metric but the loss is NaN.
    """
    model.eval()
    width = 1 + 2 * num_classes if kind == "multilabel" else 6
    parts = [torch.empty(0, width, dtype=torch.float64, device=runtime.device)]
    for images, targets in batches:
        with precision.autocast():
            logits = model(preprocess(images))
        parts.append(judge(logits, targets, kind=kind))
    rows = torch.zeros(num_images, width, dtype=torch.float64, device=runtime.device)
    mine, own = rows[runtime.rank :: runtime.world_size], torch.cat(parts)
    assert mine.shape == own.shape, f"rank {runtime.rank} has {len(own)} of {num_images} images, not {len(mine)}"
    mine.copy_(own)
    return judged_metrics(runtime.sum_over_ranks(rows).cpu().numpy(), kind=kind, num_classes=num_classes)


def judged_metrics(found: np.ndarray, *, kind: LabelKind, num_classes: int) -> dict[str, float]:
    """What `evaluate` returns, of the rows of `judge` for a whole split."""
    losses = found[:, 0]
    metrics = {"loss": float(losses.mean()), "count": float(len(found))}
    names = [name.removeprefix("val_") for name in metrics_of(kind)]
    if not np.isfinite(losses).all():
        return dict.fromkeys(names, float("nan")) | metrics
    if kind == "multilabel":
        metrics |= _label_metrics(found[:, 1 : 1 + num_classes] > 0, found[:, 1 + num_classes :])
    else:
        metrics |= _class_metrics(found, num_classes=num_classes)
        if kind == "binary":
            metrics |= _ranking(found[:, 1:2] == 1, found[:, 5:6])
    return {name: metrics[name] for name in [*names, "count"]}


@torch.inference_mode()
def predict_probabilities(
    model: nn.Module, batches: Batches, *, kind: LabelKind, preprocess: Preprocess, precision: Precision
) -> tuple[Tensor, Tensor]:
    """Probabilities and labels of every image, on the CPU. Leaves the model in evaluation mode.

    Returns:
        `class_probabilities`, (N, num_classes), and the labels as the batches gave them, (N,) or (N, num_classes).
    """
    model.eval()
    probabilities, labels = [], []
    for images, targets in batches:
        with precision.autocast():
            logits = model(preprocess(images))
        probabilities.append(class_probabilities(logits, kind=kind).cpu())
        labels.append(targets.cpu())
    return torch.cat(probabilities), torch.cat(labels)


def class_probabilities(logits: Tensor, *, kind: LabelKind) -> Tensor:
    """What logits say about the classes.

    Returns:
        (B, num_classes). For multi-label data each label's own probability, float64; otherwise rows that sum to 1,
        float64 for two classes and float32 for more.
    """
    if kind == "multiclass":
        return logits.float().softmax(dim=1)
    # Images are ranked by these; in float32 the surest of them would all be 1.
    return logits.double().sigmoid() if kind == "multilabel" else logits.double().softmax(dim=1)


def calibration_bins(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decisions in 15 equally wide bins of their confidence; a bin holds its upper edge, the first one also 0.

    Args:
        confidence: probabilities of what was decided, any shape, in [0, 1].
        correct: whether it was right, of the same shape.

    Returns:
        For each bin the number of decisions, the sum of their confidences, and the number of right ones.
    """
    confidence, correct = confidence.ravel(), correct.ravel()
    bins = np.clip(np.ceil(confidence * NUM_CALIBRATION_BINS).astype(np.int64) - 1, 0, NUM_CALIBRATION_BINS - 1)
    count, total, right = (
        np.bincount(bins, weights=weights, minlength=NUM_CALIBRATION_BINS) for weights in (None, confidence, correct)
    )
    return count, total, right


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Expected calibration error: how far confidence and accuracy of a bin lie apart, averaged over the decisions.

    Source: arXiv:1706.04599, equation 3.
    """
    count, total, right = calibration_bins(confidence, correct)
    return float(np.abs(total - right).sum() / count.sum())


def in_top(logits: Tensor, labels: Tensor, *, k: int) -> Tensor:
    """Which images have their label among the k highest logits; k above the number of classes counts all.

    Args:
        logits: (B, num_classes).
        labels: (B,), int64.

    Returns:
        (B,), bool.
    """
    k = min(k, logits.shape[1])
    return (logits.topk(k, dim=1).indices == labels[:, None]).any(dim=1)


def judge(logits: Tensor, targets: Tensor, *, kind: LabelKind) -> Tensor:
    """What all metrics are computed from: a row an image, float64, of its loss and

    - for multi-label data: the answer to every label, then the probability of every label; 1 + 2 C columns;
    - otherwise: label, predicted class, whether the label is in the top 5, confidence, probability of the last class.
    """
    probabilities = class_probabilities(logits, kind=kind)
    losses = plain_losses(logits, targets)
    if kind == "multilabel":
        return torch.cat([losses[:, None].double(), targets.double(), probabilities], dim=1)
    in_top5 = in_top(logits, targets, k=5)
    columns = [losses, targets, logits.argmax(dim=1), in_top5, probabilities.amax(dim=1), probabilities[:, -1]]
    return torch.stack([column.double() for column in columns], dim=1)


def _class_metrics(found: np.ndarray, *, num_classes: int) -> dict[str, float]:
    """Metrics of the rows of `judge`. The diagonal and the sums of the confusion matrix are all they need."""
    labels, predicted = found[:, 1].astype(np.int64), found[:, 2].astype(np.int64)
    right = labels == predicted
    support = np.bincount(labels, minlength=num_classes)
    chosen = np.bincount(predicted, minlength=num_classes)
    hits = np.bincount(labels[right], minlength=num_classes)
    seen = support > 0
    return {
        "top1": float(right.mean()),
        "top5": float(found[:, 3].mean()),
        "balanced_accuracy": float((hits[seen] / support[seen]).mean()),
        "ece": calibration_error(found[:, 4], right),
        **_averages(hits=hits, chosen=chosen, support=support),
    }


def _label_metrics(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Metrics of multi-label data.

    Args:
        labels: (N, C), bool.
        scores: (N, C), probability of each label.
    """
    predicted = scores >= 0.5
    right = predicted == labels
    hits = (predicted & labels).sum(axis=0)
    averages = _averages(hits=hits, chosen=predicted.sum(axis=0), support=labels.sum(axis=0), absent_count=True)
    return {
        "exact_match": float(right.all(axis=1).mean()),
        "ece": calibration_error(np.maximum(scores, 1 - scores), right),
        **averages,
        **_ranking(labels, scores),
    }


def _averages(
    *, hits: np.ndarray, chosen: np.ndarray, support: np.ndarray, absent_count: bool = False
) -> dict[str, float]:
    """Precision, recall and F1 averaged over the classes, plainly and weighted by their images; 0 / 0 is 0.

    Args:
        hits, chosen, support: images of a class that were predicted as it, all predicted as it, all of it; (C,).
        absent_count: whether classes that are neither label nor prediction of any image are averaged over, as 0.
    """
    if not absent_count:
        occurs = (chosen + support) > 0
        hits, chosen, support = hits[occurs], chosen[occurs], support[occurs]
    scores = {
        "precision": hits / np.maximum(chosen, 1),
        "recall": hits / np.maximum(support, 1),
        "f1": 2 * hits / np.maximum(chosen + support, 1),
    }
    shares = support / max(1, support.sum())
    return {
        **{f"macro_{name}": float(values.mean()) for name, values in scores.items()},
        **{f"weighted_{name}": float((values * shares).sum()) for name, values in scores.items()},
    }


def _ranking(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Mean area under the ROC curve and mean average precision over the labels for which they are defined.

    scikit-learn's values from ranks, about ten times as fast: this runs after every epoch.

    Args:
        labels: (N, C), bool.
        scores: (N, C).
    """
    positives = labels.sum(axis=0)
    defined = np.flatnonzero((positives > 0) & (positives < len(labels)))
    if len(defined) == 0:
        return {"auroc": 0.5, "map": 0.0}
    found = [_auroc_and_average_precision(labels[:, each], scores[:, each]) for each in defined]
    auroc, average_precision = np.mean(found, axis=0)
    return {"auroc": float(auroc), "map": float(average_precision)}


def _auroc_and_average_precision(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    from scipy.stats import rankdata  # half a second, which most trials need not wait for

    positives = int(labels.sum())
    # The Mann-Whitney statistic; ties count half.
    higher = rankdata(scores)[labels].sum() - positives * (positives + 1) / 2
    auroc = higher / (positives * (len(labels) - positives))
    # Precision among all that score at least as high, averaged over the positives.
    at_least = rankdata(-scores, method="max")[labels]
    positives_at_least = rankdata(-scores[labels], method="max")
    return float(auroc), float((positives_at_least / at_least).mean())
