"""How good is the winner on data that the search never saw? It is exported, and evaluated once."""

from __future__ import annotations

import csv
import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from search.results import RunPaths, write_json, write_text
from trainables.config import TrialConfig


def evaluate_winner(
    trial: dict[str, Any], *, number: int, run: str, device: str = "cpu", num_threads: int | None = None
) -> dict[str, Any]:
    """Exports a trial's best weights as the run's best model and evaluates them on the sealed test split.

    The split is opened once a winner: a later call for the same trial returns what was found then.

    Args:
        trial: the trial's configuration.
        number: the trial's number.
        run: the run's folder.

    Returns:
        The contents of `test/metrics.json`: top1 with a 95 % Wilson interval, top5, loss, macro averages.
    """
    paths = RunPaths(Path(run))
    found = paths.test / "metrics.json"
    if found.is_file():
        metrics: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
        if metrics["trial"] == number:
            return metrics

    import torch

    from search.report import write_test_report
    from trainables.batches import EvalBatches, Normalizer
    from trainables.data import load_data, make_splits
    from trainables.evaluate import predict_probabilities
    from trainables.exported import export_model, load_model
    from trainables.precision import Precision

    config = TrialConfig.model_validate(trial)
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    data = load_data(config.data)
    splits = make_splits(data, config.split)
    export_model(paths.best_model, config, trial_dir=paths.trial(number), data=data, train_rows=splits.train)

    exported = load_model(paths.best_model, device=torch.device(device))
    probabilities, labels = predict_probabilities(
        exported.model,
        EvalBatches(data, splits.test, device=torch.device(device)),
        normalize=Normalizer(exported.mean, exported.std, device=torch.device(device)),
        precision=Precision("fp32", device=torch.device(device)),
    )
    metrics = {"trial": number, **test_metrics(probabilities.numpy(), labels.numpy())}
    predicted = probabilities.numpy().argmax(axis=1)
    write_test_report(paths.test, labels.numpy(), predicted, class_names=data.class_names)
    _write_predictions(paths.test / "predictions.csv", splits.test, data.names, labels.numpy(), probabilities.numpy())
    write_json(found, metrics)  # last: it says that all of the above is there
    return metrics


def test_metrics(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float | int | list[float]]:
    """Scores of the test split.

    Args:
        probabilities: (N, num_classes), rows sum to 1.
        labels: (N,), int64.

    Returns:
        `top1` and its `interval95` (Wilson score interval: it stays within [0, 1] and holds near them), `top5`, `loss`,
        `balanced_accuracy`, `macro_f1`, `images`.

    Source: Brown, Cai, DasGupta, Interval Estimation for a Binomial Proportion, 2001.
    """
    from scipy.stats import binomtest
    from sklearn.metrics import balanced_accuracy_score, f1_score

    predicted = probabilities.argmax(axis=1)
    correct = int((predicted == labels).sum())
    interval = binomtest(correct, len(labels)).proportion_ci(confidence_level=0.95, method="wilson")
    highest = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    own = probabilities[np.arange(len(labels)), labels]
    return {
        "images": len(labels),
        "top1": correct / len(labels),
        "interval95": [float(interval.low), float(interval.high)],
        "top5": float((highest == labels[:, None]).any(axis=1).mean()),
        "loss": float(-np.log(np.maximum(own.astype(np.float64), 1e-12)).mean()),
        "balanced_accuracy": float(balanced_accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
    }


def _write_predictions(
    path: Path, rows: np.ndarray, names: tuple[str, ...] | None, labels: np.ndarray, probabilities: np.ndarray
) -> None:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "name", "label", "predicted", "probability", "probability_of_label"])
    predicted = probabilities.argmax(axis=1)
    for row, label, guess, values in zip(rows, labels, predicted, probabilities, strict=True):
        name = names[int(row)] if names else ""
        writer.writerow([int(row), name, int(label), int(guess), f"{values[guess]:.4f}", f"{values[label]:.4f}"])
    write_text(path, text.getvalue())
