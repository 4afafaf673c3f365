"""How good is the winner on data that the search never saw? It is exported, and evaluated once."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np

from search.results import RunPaths, write_json
from trainables.config import TrialConfig
from trainables.metric_names import LabelKind
from trainables.object_store import fetch, publish_folder

if TYPE_CHECKING:
    import torch

    from trainables.data import ImageData
    from trainables.splits import Splits


def evaluate_winner(
    trial: dict[str, Any],
    *,
    number: int,
    run: str,
    folders: Sequence[str] = (),
    seeds: Sequence[int] = (),
    device: str = "cpu",
    num_threads: int | None = None,
) -> dict[str, Any]:
    """Exports a trial's best weights as the run's best model and evaluates them on the sealed test split.

    The split is opened once a winner: a later call for the same trial returns what was found then. Where an extended
    run has found another winner, what was found for those before it stays on record, as `earlier`.

    Args:
        trial: the trial's configuration.
        number: the trial's number.
        run: the run's folder.
        folders: of the trial's retrainings, if there are any: the first is exported instead, and all are evaluated.
        seeds: of these retrainings.

    Returns:
        The contents of `test/metrics.json`: the trial's number, `test_metrics` of the exported model, those of all
        `retrained` in the order of the folders, their `seeds` and `refit_epochs`, and `earlier`.
    """
    paths = RunPaths(Path(run))
    fetch(paths.test)
    found = paths.test / "metrics.json"
    earlier: list[dict[str, Any]] = []
    if found.is_file():
        before: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
        if before["trial"] == number:
            return before
        earlier = [*before.pop("earlier", []), before]

    import torch

    from search.trial_place import require_recorded_images
    from trainables.checkpoint import TrialFiles
    from trainables.data import load_data
    from trainables.splits import make_splits

    config = TrialConfig.model_validate(trial)
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    data = load_data(config.data)
    require_recorded_images(paths, config.data, data.fingerprint)
    task = _Task(config, data, make_splits(data, config.split), torch.device(device), num_threads or 1)
    trained = [Path(folder) for folder in folders] or [paths.trial(number)]
    for folder in trained:
        TrialFiles(folder).fetch()
    metrics = _evaluate(trained[0], paths.best_model, task, report_to=paths.test)
    retrained = [metrics] if folders else []
    retrained += [_evaluate(folder, folder / "model", task) for folder in trained[1:]]
    for folder in (paths.best_model, paths.test, *trained):
        publish_folder(folder)
    trained_as = {"seeds": list(seeds), "refit_epochs": config.refit_epochs}
    metrics = {"trial": number, **metrics, "retrained": retrained, **trained_as, "earlier": earlier}
    write_json(found, metrics)  # last: it says that all of the above is there
    return metrics


@dataclass(frozen=True)
class _Task:
    """What models are evaluated on."""

    config: TrialConfig
    data: ImageData
    splits: Splits
    device: torch.device
    num_threads: int


def _evaluate(trial_dir: Path, model_dir: Path, task: _Task, *, report_to: Path | None = None) -> dict[str, Any]:
    """Exports the weights of one training, and its metrics on the test split."""
    from search.test_report import write_predictions, write_test_report
    from trainables.batches import EvalBatches
    from trainables.evaluate import predict_probabilities
    from trainables.exported import export_model, load_model
    from trainables.precision import Precision

    data, rows = task.data, task.splits.test
    export_model(model_dir, task.config, trial_dir=trial_dir, data=data, train_rows=task.splits.train)
    exported = load_model(model_dir, device=task.device)
    batches = EvalBatches(data, rows, device=task.device, num_threads=task.num_threads)
    predicted = batches.within_memory(
        lambda: predict_probabilities(
            exported.model,
            batches,
            kind=exported.kind,
            preprocess=exported.preprocess,
            precision=Precision("fp32", device=task.device),
        )
    )
    probabilities, labels = (each.numpy() for each in predicted)
    kind, names = exported.kind, exported.class_names
    if report_to is not None:
        write_test_report(report_to, probabilities=probabilities, labels=labels, kind=kind, class_names=names)
        write_predictions(
            report_to / "predictions.csv",
            rows=rows,
            names=data.names,
            probabilities=probabilities,
            labels=labels,
            kind=kind,
            class_names=names,
        )
    return test_metrics(probabilities, labels=labels, kind=kind)


def mean_interval(values: Sequence[float], *, most: float) -> tuple[float, float, float] | None:
    """Mean and 95 % interval of the mean over seeds, by Student's t; None for fewer than two values.

    It says how much training varies, not how few images the test split has: that is `interval95` of `test_metrics`.

    Args:
        most: the largest value there can be; the least is 0.
    """
    if len(values) < 2:
        return None
    from scipy.stats import t

    center = mean(values)
    margin = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return center, max(0.0, center - margin), min(most, center + margin)


def test_metrics(probabilities: np.ndarray, *, labels: np.ndarray, kind: LabelKind) -> dict[str, Any]:
    """Scores of the test split: what `metrics_of(kind)` names, without the prefix `val_`, and how sure they are.

    They are defined as in `trainables.evaluate.evaluate`, and computed by scikit-learn.

    Args:
        probabilities: (N, C); rows sum to 1, except for multi-label data.
        labels: (N,) int64, or (N, C) of 0 and 1 for multi-label data.

    Returns:
        Besides the metrics `images`, and `interval95` of `top1` (of `exact_match` for multi-label data): the Wilson
        score interval, which stays within [0, 1] and holds near them.

    Source: Brown, Cai, DasGupta, Interval Estimation for a Binomial Proportion, 2001.
    """
    from scipy.stats import binomtest

    score = _multi_label_metrics if kind == "multilabel" else _single_label_metrics
    metrics, correct = score(probabilities, labels)
    interval = binomtest(correct, len(labels)).proportion_ci(confidence_level=0.95, method="wilson")
    return {"images": len(labels), "interval95": [float(interval.low), float(interval.high)], **metrics}


def _single_label_metrics(probabilities: np.ndarray, labels: np.ndarray) -> tuple[dict[str, float], int]:
    """Metrics, and how many images are classified correctly."""
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support, recall_score, roc_auc_score

    from trainables.evaluate import calibration_error

    predicted = probabilities.argmax(axis=1)
    right = predicted == labels
    own = probabilities[np.arange(len(labels)), labels]
    metrics = {
        "top1": float(right.mean()),
        "top5": float((_places(probabilities, labels) < 5).mean()),
        "loss": float(-np.log(_positive(own)).mean()),
        # That is balanced accuracy; scikit-learn's function of this name warns where a class has no images.
        "balanced_accuracy": float(
            recall_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0)
        ),
        "ece": calibration_error(probabilities.max(axis=1), right),
    }
    for average in ("macro", "weighted"):
        scores = precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)
        metrics |= {
            f"{average}_{name}": float(value)
            for name, value in zip(("precision", "recall", "f1"), scores[:3], strict=True)
        }
    if probabilities.shape[1] == 2:
        varies = 0 < labels.sum() < len(labels)
        metrics["auroc"] = float(roc_auc_score(labels, probabilities[:, 1])) if varies else 0.5
        metrics["map"] = float(average_precision_score(labels, probabilities[:, 1])) if varies else 0.0
    return metrics, int(right.sum())


def _multi_label_metrics(probabilities: np.ndarray, labels: np.ndarray) -> tuple[dict[str, float], int]:
    """Metrics, and for how many images every label is right."""
    from search.test_report import label_scores
    from trainables.evaluate import calibration_error

    right = (probabilities >= 0.5) == labels
    scores = label_scores(labels, probabilities)
    shares = scores["support"] / max(1, scores["support"].sum())
    said = np.where(labels > 0, probabilities, 1 - probabilities)
    defined = ~np.isnan(scores["auroc"])
    metrics = {
        "exact_match": float(right.all(axis=1).mean()),
        "loss": float(-np.log(_positive(said)).mean()),
        "ece": calibration_error(np.maximum(probabilities, 1 - probabilities), right),
        "auroc": float(scores["auroc"][defined].mean()) if defined.any() else 0.5,
        "map": float(scores["average_precision"][defined].mean()) if defined.any() else 0.0,
    }
    for name in ("precision", "recall", "f1"):
        metrics[f"macro_{name}"] = float(scores[name].mean())
        metrics[f"weighted_{name}"] = float((scores[name] * shares).sum())
    return metrics, int(right.all(axis=1).sum())


def _places(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes come before the true one; among equals, those with lower numbers."""
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    before: np.ndarray = ((probabilities > own) | ((probabilities == own) & earlier)).sum(axis=1)
    return before


def _positive(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities whose logarithm is finite."""
    return np.maximum(probabilities.astype(np.float64), np.finfo(np.float32).tiny)
