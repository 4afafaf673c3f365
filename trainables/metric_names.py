"""Which metrics does a trial report, which way is better, and for which labels is each defined? Free of torch."""

from __future__ import annotations

import math
from typing import Literal

LabelKind = Literal["binary", "multiclass", "multilabel"]

_AVERAGES = ("macro_precision", "macro_recall", "macro_f1", "weighted_precision", "weighted_recall", "weighted_f1")
_ALL: tuple[LabelKind, ...] = ("binary", "multiclass", "multilabel")
_SINGLE: tuple[LabelKind, ...] = ("binary", "multiclass")
_SCORED: tuple[LabelKind, ...] = ("binary", "multilabel")

# Metric of the validation split -> the kinds of labels it is defined for. `auroc` and `map` are, for binary labels,
# those of the second class; for multi-label data the mean over the labels.
METRIC_KINDS: dict[str, tuple[LabelKind, ...]] = {
    "val_top1": _SINGLE,
    "val_top5": _SINGLE,
    "val_loss": _ALL,
    "val_balanced_accuracy": _SINGLE,
    **{f"val_{name}": _ALL for name in _AVERAGES},
    "val_auroc": _SCORED,
    "val_map": _SCORED,
    "val_exact_match": ("multilabel",),
    "val_ece": _ALL,
}

METRIC_MODES: dict[str, Literal["max", "min"]] = {
    name: "min" if name in ("val_loss", "val_ece") else "max" for name in METRIC_KINDS
}

# What a trial's network costs in use, known before it trains; for one image.
STATIC_OBJECTIVES: dict[str, str] = {
    "num_params": "parameters of the network, trained and frozen",
    "flops": "floating-point operations of one forward pass for one image; a multiply-add counts as two",
    "model_mib": "size of the weights in MiB, as fp32",
    "latency_ms": "milliseconds of one forward pass for one image, median",
}


def metrics_of(kind: LabelKind) -> tuple[str, ...]:
    """The metrics that a trial on such labels reports."""
    return tuple(name for name, kinds in METRIC_KINDS.items() if kind in kinds)


def is_better(value: float, than: float | None, *, metric: str) -> bool:
    """Whether a metric value improves on another; NaN never does, and anything finite improves on None."""
    if not math.isfinite(value):
        return False
    if than is None:
        return True
    return value > than if METRIC_MODES[metric] == "max" else value < than
