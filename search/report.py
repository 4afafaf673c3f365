"""What did the search find? Tables and pictures for a person; nothing here decides anything."""

from __future__ import annotations

import csv
from collections import Counter
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np

from search.config import SearchConfig
from search.ledger import Status, TrialRecord, rank
from search.results import RunPaths, write_bytes, write_json, write_text


def write_leaderboard(path: Path, records: list[TrialRecord], *, metric: str, searched: list[str]) -> None:
    """A row a trial, from best to worst; failed ones last, with their cause."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ["rank", "trial", "status", metric, "val_loss", "best_epoch", "epochs", "train_s", "images_per_s"]
    writer.writerow([*columns, *searched, "cause", "message"])
    for place, record in enumerate(rank(records, metric=metric), start=1):
        ranked = record.score is not None and record.status is not Status.FAILED
        writer.writerow(
            [
                place if ranked else "",
                record.number,
                record.status.value,
                _cell(record.score),
                _cell(record.val_loss),
                _cell(record.best_epoch),
                record.epochs,
                f"{record.train_s:.3f}",
                "" if record.images_per_s is None else f"{record.images_per_s:.0f}",
                *(_cell(record.params.get(name)) for name in searched),
                record.cause or "",
                record.message or "",
            ]
        )
    write_text(path, text.getvalue())


def write_summary(
    paths: RunPaths,
    config: SearchConfig,
    records: list[TrialRecord],
    *,
    state: str,
    reason: str | None,
    elapsed_s: float,
    test: dict[str, Any] | None,
) -> None:
    """The run in one JSON file.

    Args:
        state: finished, interrupted or failed.
        reason: why it ended before its trials were used up, where it did.
        test: the winner's test metrics; None where there is no winner yet.
    """
    ranked = rank(records, metric=config.task.metric)
    best = ranked[0] if ranked and ranked[0].score is not None and ranked[0].status is not Status.FAILED else None
    counts = Counter(record.status for record in records)
    write_json(
        paths.summary,
        {
            "run": paths.name,
            "state": state,
            "ended_because": reason,
            "trials": {status.value: counts[status] for status in Status},
            "epochs": sum(record.epochs for record in records),
            "elapsed_s": round(elapsed_s, 1),
            "train_s": round(sum(record.train_s for record in records), 1),
            "best": None
            if best is None
            else {
                "trial": best.number,
                "status": best.status.value,
                config.task.metric: best.score,
                "val_loss": best.val_loss,
                "epoch": best.best_epoch,
                "params": dict(best.params),
            },
            "test": test,
            "failures": [
                {"trial": record.number, "cause": record.cause, "message": record.message}
                for record in records
                if record.status is Status.FAILED
            ],
        },
    )


def write_test_report(folder: Path, labels: np.ndarray, predicted: np.ndarray, *, class_names: tuple[str, ...]) -> None:
    """The confusion matrix as CSV and PNG, and precision, recall and F1 of every class as CSV.

    Args:
        labels: (N,), int64.
        predicted: (N,), int64.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    classes = list(range(len(class_names)))
    matrix = confusion_matrix(labels, predicted, labels=classes)
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["true \\ predicted", *class_names])
    for name, row in zip(class_names, matrix, strict=True):
        writer.writerow([name, *row.tolist()])
    write_text(folder / "confusion_matrix.csv", text.getvalue())
    write_bytes(folder / "confusion_matrix.png", _confusion_picture(matrix, class_names=class_names))

    scores = precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0)
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", "precision", "recall", "f1", "images"])
    for name, precision, recall, f1, support in zip(class_names, *scores, strict=True):
        writer.writerow([name, f"{precision:.4f}", f"{recall:.4f}", f"{f1:.4f}", int(support)])
    write_text(folder / "per_class.csv", text.getvalue())


def _confusion_picture(matrix: np.ndarray, *, class_names: tuple[str, ...]) -> bytes:
    """Rows are true classes, shaded by their share; counts are written while they are legible."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = len(class_names)
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
        axes.set_xticks(range(size), class_names, rotation=90 if size > 12 or max(map(len, class_names)) > 3 else 0)
        axes.set_yticks(range(size), class_names)
    if size <= 30:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour, fontsize=8)
    picture = BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value
