"""What is said of the winner on the test split: numbers, tables and pictures that agree with each other."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score, top_k_accuracy_score

from search import final
from search.results import write_json
from search.test_report import write_predictions, write_test_report

NAMES = tuple("abcdefghij")


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a linear classifier for real images that it has not seen, and their classes."""
    x, y = load_digits(return_X_y=True)
    linear = LogisticRegression(max_iter=2000).fit(x[:300] / 16, y[:300])
    return linear.predict_proba(x[300:] / 16).astype(np.float32), y[300:].astype(np.int64)


def labels_of_digits() -> tuple[np.ndarray, np.ndarray]:
    """The same images with three labels: even, round and, for none of them, letter."""
    probabilities, classes = digits()
    even, loops = np.arange(10) % 2 == 0, np.isin(np.arange(10), [0, 6, 8, 9])
    truth = np.column_stack([even[classes], loops[classes], np.zeros(len(classes), bool)])
    scores = np.column_stack([probabilities[:, even].sum(1), probabilities[:, loops].sum(1), 0.1 * probabilities[:, 0]])
    return np.clip(scores.astype(np.float64), 0, 1), truth.astype(np.uint8)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_single_label_metrics() -> None:
    probabilities, labels = digits()
    found = final.test_metrics(probabilities, labels=labels, kind="multiclass")
    assert found["top1"] == pytest.approx((probabilities.argmax(1) == labels).mean())
    assert found["top5"] == pytest.approx(top_k_accuracy_score(labels, probabilities, k=5))
    assert found["loss"] == pytest.approx(log_loss(labels, probabilities), rel=1e-5)
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, probabilities.argmax(1)))
    low, high = found["interval95"]
    assert low < found["top1"] < high
    assert "auroc" not in found


@pytest.mark.parametrize(("right", "interval"), [(0, (0.0, 0.2775)), (10, (0.7225, 1.0)), (8, (0.4902, 0.9433))])
def test_interval_is_wilsons(right: int, interval: tuple[float, float]) -> None:
    probabilities = np.tile(np.array([0.7, 0.2, 0.1]), (10, 1))
    labels = np.where(np.arange(10) < right, 0, 1)
    found = final.test_metrics(probabilities, labels=labels, kind="multiclass")
    assert found["interval95"] == pytest.approx(interval, abs=1e-4)


def test_equal_probabilities_are_no_top5() -> None:
    found = final.test_metrics(np.full((20, 20), 0.05), labels=np.arange(20), kind="multiclass")
    assert found["top5"] == 0.25


def test_multi_label_metrics() -> None:
    probabilities, labels = labels_of_digits()
    found = final.test_metrics(probabilities, labels=labels, kind="multilabel")
    assert found["exact_match"] == pytest.approx(((probabilities >= 0.5) == labels).all(axis=1).mean())
    assert found["auroc"] == pytest.approx(roc_auc_score(labels[:, :2], probabilities[:, :2]))  # not of the third
    assert found["interval95"][0] < found["exact_match"] < found["interval95"][1]


def test_single_label_report(tmp_path: Path) -> None:
    probabilities, labels = digits()
    write_test_report(tmp_path, probabilities=probabilities, labels=labels, kind="multiclass", class_names=NAMES)
    found = final.test_metrics(probabilities, labels=labels, kind="multiclass")

    matrix = np.loadtxt(tmp_path / "confusion_matrix.csv", delimiter=",", skiprows=1, usecols=range(1, 11))
    assert np.trace(matrix) / matrix.sum() == pytest.approx(found["top1"])
    mistakes = read(tmp_path / "mistakes.csv")
    counts = [int(row["images"]) for row in mistakes]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == matrix.sum() - np.trace(matrix)
    assert counts[0] == matrix[NAMES.index(mistakes[0]["true"]), NAMES.index(mistakes[0]["predicted"])]
    assert np.mean([float(row["f1"]) for row in read(tmp_path / "per_class.csv")]) == pytest.approx(
        found["macro_f1"], abs=1e-4
    )
    bins = [row for row in read(tmp_path / "reliability.csv") if int(row["decisions"])]
    gaps = [int(row["decisions"]) * abs(float(row["accuracy"]) - float(row["mean_confidence"])) for row in bins]
    assert sum(gaps) / len(labels) == pytest.approx(found["ece"], abs=1e-3)
    with Image.open(tmp_path / "confusion_matrix.png") as picture:
        picture.verify()


def test_multi_label_report(tmp_path: Path) -> None:
    probabilities, labels = labels_of_digits()
    names = ("even", "round", "letter")
    write_test_report(tmp_path, probabilities=probabilities, labels=labels, kind="multilabel", class_names=names)
    found = final.test_metrics(probabilities, labels=labels, kind="multilabel")
    rows = read(tmp_path / "per_class.csv")
    assert [row["class"] for row in rows] == list(names)
    assert np.mean([float(row["auroc"]) for row in rows[:2]]) == pytest.approx(found["auroc"], abs=1e-4)
    assert (rows[2]["auroc"], rows[2]["average_precision"], rows[2]["images"]) == ("", "", "0")
    for row, label, count in zip(rows, labels.T, read(tmp_path / "label_counts.csv"), strict=True):
        numbers = [int(count[name]) for name in list(count)[1:]]
        assert sum(numbers) == len(labels)
        assert numbers[0] + numbers[2] == label.sum() == int(row["images"])
        assert float(row["recall"]) == pytest.approx(numbers[0] / max(1, label.sum()), abs=1e-4)
    assert not (tmp_path / "confusion_matrix.png").exists()


def test_thousands_of_classes_have_no_matrix(tmp_path: Path) -> None:
    labels = np.arange(1500)
    probabilities = np.eye(1500, dtype=np.float32)[np.roll(labels, 1)]
    names = tuple(map(str, range(1500)))
    write_test_report(tmp_path, probabilities=probabilities, labels=labels, kind="multiclass", class_names=names)
    assert not (tmp_path / "confusion_matrix.csv").exists()
    assert len(read(tmp_path / "mistakes.csv")) == 1500


def test_names_of_any_kind_cost_no_result(tmp_path: Path) -> None:
    probabilities, labels = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 3]], np.array([0, 1, 2, 3, 0])
    odd = os.fsdecode(b"caf\xe9")
    names = ("$1-$5", "$\\nosuch{$", "<b>&amp;", odd)
    write_test_report(tmp_path, probabilities=probabilities, labels=labels, kind="multiclass", class_names=names)
    with Image.open(tmp_path / "confusion_matrix.png") as picture:
        picture.verify()
    path = tmp_path / "predictions.csv"
    files = [f"{odd}/{number}.png" for number in range(5)]
    common = {"labels": labels, "kind": "multiclass", "class_names": names, "names": files}
    write_predictions(path, probabilities=probabilities, rows=np.arange(5), **common)
    assert os.fsencode(files[4]) in path.read_bytes()
    write_json(tmp_path / "names.json", [odd])
    assert json.loads((tmp_path / "names.json").read_text(encoding="utf-8")) == [odd]


def test_predictions(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    probabilities, labels = digits()
    rows = np.arange(300, 300 + len(labels))
    common = {"rows": rows, "class_names": NAMES}
    write_predictions(path, probabilities=probabilities, labels=labels, kind="multiclass", names=None, **common)
    written = read(path)
    assert [int(row["label"]) for row in written] == labels.tolist()
    assert [int(row["predicted"]) for row in written] == probabilities.argmax(1).tolist()
    assert float(written[0]["probability_of_label"]) == pytest.approx(probabilities[0, labels[0]], abs=1e-4)

    probabilities, labels = labels_of_digits()
    names = tuple(f"{row}.png" for row in range(300 + len(labels)))
    common["class_names"] = ("even", "round", "letter")
    write_predictions(path, probabilities=probabilities, labels=labels, kind="multilabel", names=names, **common)
    for row, truth, values in zip(read(path), labels, probabilities, strict=True):
        assert row["name"] == f"{row['row']}.png"
        assert [str(n) in row["labels"].split() for n in range(3)] == truth.astype(bool).tolist()
        assert [str(n) in row["predicted"].split() for n in range(3)] == (values >= 0.5).tolist()
        assert float(row["round"]) == pytest.approx(values[1], abs=1e-4)
