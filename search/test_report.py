"""How good is the winner, class by class? Tables and pictures of the test split, for a person."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np

from search.results import write_bytes, write_text
from trainables.metric_names import LabelKind

# Above it a confusion matrix is a picture of nothing and a table of hundreds of megabytes.
_MOST_CLASSES_IN_MATRIX = 1000


def write_test_report(
    folder: Path, *, probabilities: np.ndarray, labels: np.ndarray, kind: LabelKind, class_names: tuple[str, ...]
) -> None:
    """Writes into a folder

    - per_class.csv: precision, recall, F1 and images of every class; for multi-label data AUROC and average precision;
    - reliability.csv: accuracy beside confidence, in 15 bins of confidence;
    - for images of one class each: confusion_matrix.csv and .png for up to 1000 classes, and mistakes.csv, the
      confusions that occur, most frequent first; for multi-label data label_counts.csv, right and wrong answers.

    Args:
        probabilities: (N, C).
        labels: (N,) int64, or (N, C) of 0 and 1 for multi-label data.
    """
    if kind == "multilabel":
        predicted = probabilities >= 0.5
        confidence, right = np.maximum(probabilities, 1 - probabilities), predicted == labels
        _write_label_tables(folder, labels, predicted, probabilities, class_names=class_names)
    else:
        predicted = probabilities.argmax(axis=1)
        confidence, right = probabilities.max(axis=1), predicted == labels
        _write_class_tables(folder, labels, predicted, class_names=class_names)
    _write_reliability(folder / "reliability.csv", confidence, right)


def write_predictions(
    path: Path,
    *,
    rows: np.ndarray,
    names: tuple[str, ...] | None,
    probabilities: np.ndarray,
    labels: np.ndarray,
    kind: LabelKind,
    class_names: tuple[str, ...],
) -> None:
    """What the winner says of each test image.

    Classes are their numbers in class_names. For multi-label data they are separated by spaces, and the probability of
    every label follows.

    Args:
        rows: (N,) int64, which images of the data set these are.
        names: of all images of the data set, where they have some.
    """
    shown = [names[int(row)] if names else "" for row in rows]
    if kind == "multilabel":
        header = ["row", "name", "labels", "predicted", *class_names]
        lines: Iterable[Sequence[object]] = (
            [int(row), name, _numbers(truth), _numbers(values >= 0.5), *(f"{value:.4f}" for value in values)]
            for row, name, truth, values in zip(rows, shown, labels, probabilities, strict=True)
        )
    else:
        header = ["row", "name", "label", "predicted", "probability", "probability_of_label"]
        lines = (
            [int(row), name, int(label), int(values.argmax()), f"{values.max():.4f}", f"{values[label]:.4f}"]
            for row, name, label, values in zip(rows, shown, labels, probabilities, strict=True)
        )
    _write_table(path, header, lines)


def label_scores(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """scikit-learn's scores of every label of multi-label data.

    Args:
        labels: (N, C), 0 and 1.
        probabilities: (N, C).

    Returns:
        `precision`, `recall`, `f1`, `support`, `auroc`, `average_precision`, (C,) each; the last two are NaN for labels
        that no image or every image has.
    """
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

    table: dict[str, list[float]] = {}
    for truth, scores in zip(labels.astype(np.int64).T, probabilities.T, strict=True):
        precision, recall, f1, _ = precision_recall_fscore_support(
            truth, scores >= 0.5, average="binary", zero_division=0
        )
        varies = 0 < truth.sum() < len(truth)
        row = {
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "support": truth.sum(),
            "auroc": roc_auc_score(truth, scores) if varies else np.nan,
            "average_precision": average_precision_score(truth, scores) if varies else np.nan,
        }
        for name, value in row.items():
            table.setdefault(name, []).append(float(value))
    return {name: np.array(values) for name, values in table.items()}


def _write_label_tables(
    folder: Path, labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, *, class_names: tuple[str, ...]
) -> None:
    scores = label_scores(labels, probabilities)
    _write_table(
        folder / "per_class.csv",
        ["class", "precision", "recall", "f1", "images", "auroc", "average_precision"],
        (
            [name, *map(_score, values[:3]), int(values[3]), *map(_score, values[4:])]
            for name, values in zip(class_names, np.stack(list(scores.values()), axis=1), strict=True)
        ),
    )
    truth = labels > 0
    counts = [(truth & predicted), (~truth & predicted), (truth & ~predicted), (~truth & ~predicted)]
    _write_table(
        folder / "label_counts.csv",
        ["class", "true_positive", "false_positive", "false_negative", "true_negative"],
        zip(class_names, *(each.sum(axis=0).tolist() for each in counts), strict=True),
    )


def _write_class_tables(
    folder: Path, labels: np.ndarray, predicted: np.ndarray, *, class_names: tuple[str, ...]
) -> None:
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    classes = list(range(len(class_names)))
    scores = precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0)
    _write_table(
        folder / "per_class.csv",
        ["class", "precision", "recall", "f1", "images"],
        (
            [name, *map(_score, values), int(support)]
            for name, *values, support in zip(class_names, *scores, strict=True)
        ),
    )
    wrong = labels != predicted
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]]), axis=1, return_counts=True)
    _write_table(
        folder / "mistakes.csv",
        ["true", "predicted", "images"],
        (
            [class_names[pairs[0, place]], class_names[pairs[1, place]], counts[place]]
            for place in np.argsort(-counts, kind="stable")
        ),
    )
    if len(class_names) > _MOST_CLASSES_IN_MATRIX:
        return
    matrix = confusion_matrix(labels, predicted, labels=classes)
    _write_table(
        folder / "confusion_matrix.csv",
        ["true \\ predicted", *class_names],
        ([name, *row.tolist()] for name, row in zip(class_names, matrix, strict=True)),
    )
    write_bytes(folder / "confusion_matrix.png", _confusion_picture(matrix, class_names=class_names))


def _write_reliability(path: Path, confidence: np.ndarray, right: np.ndarray) -> None:
    from trainables.evaluate import NUM_CALIBRATION_BINS, calibration_bins

    edges = np.linspace(0, 1, NUM_CALIBRATION_BINS + 1)
    _write_table(
        path,
        ["above", "up_to", "decisions", "mean_confidence", "accuracy"],
        (
            [f"{low:.4f}", f"{high:.4f}", int(count), *(_score(value / count) if count else "" for value in sums)]
            for low, high, count, *sums in zip(edges[:-1], edges[1:], *calibration_bins(confidence, right), strict=True)
        ),
    )


def _confusion_picture(matrix: np.ndarray, *, class_names: tuple[str, ...]) -> bytes:
    """Rows are true classes, shaded by their share; counts are written while they are legible."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = len(class_names)
    names = [name.encode("utf-8", "replace").decode() for name in class_names]
    side = min(4.0 + 0.35 * size, 24.0)
    figure = Figure(figsize=(side + 1.2, side), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0)
    figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.046)
    total, correct = int(matrix.sum()), int(np.trace(matrix))
    axes.set(xlabel="predicted", ylabel="true", title=f"Test split: {correct} of {total} right")
    if size <= 60:
        rotation = 90 if size > 12 or max(map(len, names)) > 3 else 0
        axes.set_xticks(range(size), names, rotation=rotation, parse_math=False)
        axes.set_yticks(range(size), names, parse_math=False)
    if size <= 30:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour, fontsize=8)
    picture = BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _write_table(path: Path, header: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    write_text(path, text.getvalue())


def _score(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.4f}"


def _numbers(chosen: np.ndarray) -> str:
    return " ".join(map(str, np.flatnonzero(chosen)))
