"""Metrics: scikit-learn's values, and the same bits for any number of workers."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from search import final
from trainables.evaluate import calibration_bins, calibration_error, evaluate, in_top, predict_probabilities
from trainables.metric_names import LabelKind, metrics_of
from trainables.precision import Precision
from trainables.runtime import LocalRuntime

FP32 = Precision("fp32", device=torch.device("cpu"))


class ThreadRuntime(LocalRuntime):
    """One of several workers that are threads of this process, and meet to add up their values."""

    def __init__(self, rank: int, world_size: int, *, meet: threading.Barrier, values: list[Tensor]) -> None:
        super().__init__()
        self.rank, self.world_size = rank, world_size
        self._meet, self._values = meet, values

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        self._values[self.rank] = values
        self._meet.wait(timeout=30)
        return torch.stack(self._values).sum(dim=0)


def on_ranks(world_size: int, work: Callable[[LocalRuntime], dict[str, float]]) -> list[dict[str, float]]:
    """What every rank returns."""
    meet, values = threading.Barrier(world_size), [torch.empty(0)] * world_size
    results: list[dict[str, float]] = [{}] * world_size

    def run(rank: int) -> None:
        results[rank] = work(ThreadRuntime(rank, world_size, meet=meet, values=values))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def metrics(
    logits: Tensor, labels: Tensor, *, kind: LabelKind, runtime: LocalRuntime | None = None, batch_size: int = 7
) -> dict[str, float]:
    """Evaluates a network that answers with these logits."""
    runtime = runtime or LocalRuntime()
    own, truth = logits[runtime.rank :: runtime.world_size], labels[runtime.rank :: runtime.world_size]
    return evaluate(
        nn.Identity(),
        list(zip(own.split(batch_size), truth.split(batch_size), strict=True)) if len(own) else [],
        num_images=len(logits),
        kind=kind,
        num_classes=logits.shape[1],
        preprocess=lambda images: images,
        precision=FP32,
        runtime=runtime,
    )


def single(num_images: int, num_classes: int, *, skill: float = 1.5, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    labels = rng.choice(num_classes, num_images, p=rng.dirichlet(np.ones(num_classes)))
    logits = rng.normal(size=(num_images, num_classes)) + skill * np.eye(num_classes)[labels]
    return torch.from_numpy(logits.astype(np.float32)), torch.from_numpy(labels.astype(np.int64))


def multi(num_images: int, num_labels: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    labels = rng.random((num_images, num_labels)) < rng.uniform(0.02, 0.6, num_labels)
    logits = rng.normal(size=labels.shape) + 2.0 * labels - 1.0
    return torch.from_numpy(logits.astype(np.float32)), torch.from_numpy(labels.astype(np.float32))


def digits() -> tuple[Tensor, Tensor]:
    """What a linear classifier says of real images that it has not seen."""
    x, y = load_digits(return_X_y=True)
    linear = LogisticRegression(max_iter=2000).fit(x[:300] / 16, y[:300])
    return torch.from_numpy(linear.decision_function(x[300:] / 16).astype(np.float32)), torch.from_numpy(y[300:])


def absent() -> tuple[Tensor, Tensor]:
    """Of 8 classes: 3 is predicted but never true, 5 true but never predicted, 6 neither."""
    logits, labels = single(120, 8, skill=1.0, seed=3)
    logits[:, [5, 6]] = -20
    logits[:3, 3] = 20
    labels[(labels == 3) | (labels == 6)] = 5
    return logits, labels


def tied() -> tuple[Tensor, Tensor]:
    """Scores of which many are equal, as a coarse number format makes them."""
    logits, labels = single(200, 2, skill=1.0)
    return (logits * 2).round() / 2, labels


def unanimous() -> tuple[Tensor, Tensor]:
    """Multi-label data: one label on every image, one on none, one that is never predicted."""
    logits, labels = multi(60, 5)
    labels[:, 0], labels[:, 1] = 1, 0
    logits[:, 2] = -logits[:, 2].abs() - 1
    return logits, labels


CASES: dict[str, tuple[LabelKind, Callable[[], tuple[Tensor, Tensor]]]] = {
    "digits": ("multiclass", digits),
    "many classes": ("multiclass", lambda: single(400, 100)),
    "three classes": ("multiclass", lambda: single(50, 3)),
    "absent classes": ("multiclass", absent),
    "binary": ("binary", lambda: single(150, 2)),
    "ties": ("binary", tied),
    "one class only": ("binary", lambda: (single(20, 2)[0], torch.ones(20, dtype=torch.int64))),
    "multi-label": ("multilabel", lambda: multi(300, 12)),
    "unanimous labels": ("multilabel", unanimous),
    "one label": ("multilabel", lambda: multi(80, 1)),
    "no labels at all": ("multilabel", lambda: (multi(30, 3)[0], torch.zeros(30, 3))),
}


@pytest.mark.parametrize("case", CASES)
def test_every_metric_is_scikit_learns(case: str) -> None:
    kind, make = CASES[case]
    logits, labels = make()
    found = metrics(logits, labels, kind=kind)
    batches = zip(logits.split(9), labels.split(9), strict=True)
    probabilities, _ = predict_probabilities(
        nn.Identity(), batches, kind=kind, preprocess=lambda images: images, precision=FP32
    )
    expected = final.test_metrics(probabilities.numpy(), labels=labels.numpy(), kind=kind)

    assert list(found) == [*(name.removeprefix("val_") for name in metrics_of(kind)), "count"]
    assert {type(value) for value in found.values()} == {float}
    assert found.pop("count") == expected.pop("images") == len(labels)
    expected.pop("interval95")
    # Losses and confidences are float32 here and there; everything else is the same number.
    assert found.pop("loss") == pytest.approx(expected.pop("loss"), rel=1e-5)
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("case", ["digits", "absent classes", "binary", "multi-label"])
@pytest.mark.parametrize("world_size", [2, 4])
def test_any_number_of_workers_finds_the_same_bits(case: str, world_size: int) -> None:
    kind, make = CASES[case]
    logits, labels = make()
    alone = metrics(logits, labels, kind=kind)
    for batch_size in (5, 64):
        work = lambda runtime, size=batch_size: metrics(logits, labels, kind=kind, runtime=runtime, batch_size=size)  # noqa: E731
        assert on_ranks(world_size, work) == [alone] * world_size


def test_more_workers_than_images() -> None:
    logits, labels = single(3, 4)
    assert (
        on_ranks(4, lambda runtime: metrics(logits, labels, kind="multiclass", runtime=runtime))
        == [metrics(logits, labels, kind="multiclass")] * 4
    )


def test_undefined_ranking_is_chance_not_nan() -> None:
    logits, labels = CASES["no labels at all"][1]()
    found = metrics(logits, labels, kind="multilabel")
    assert (found["auroc"], found["map"]) == (0.5, 0.0)


@pytest.mark.parametrize("case", ["digits", "binary", "multi-label"])
def test_a_diverged_network_has_a_loss_and_no_metrics(case: str) -> None:
    kind, make = CASES[case]
    logits, labels = make()
    logits[3, 0] = float("nan")
    found = metrics(logits, labels, kind=kind)
    assert found.pop("count") == len(labels)
    assert np.isnan(list(found.values())).all()


def test_missing_images_are_our_bug() -> None:
    logits, labels = single(20, 3)
    with pytest.raises(AssertionError, match="rank 0 has 1 of 20 images, not 20"):
        evaluate(
            nn.Identity(),
            [(logits[:1], labels[:1])],
            num_images=20,
            kind="multiclass",
            num_classes=3,
            preprocess=lambda images: images,
            precision=FP32,
            runtime=LocalRuntime(),
        )


def test_dropout_is_off_and_nothing_is_recorded() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 4))
    logits, labels = single(30, 4)
    seen = []

    def note(_: nn.Module, __: object, output: Tensor) -> None:
        seen.append(output.requires_grad)

    model.register_forward_hook(note)
    arguments = {"kind": "multiclass", "preprocess": lambda images: images, "precision": FP32}
    first, again = (
        evaluate(model.train(), [(logits, labels)], num_images=30, num_classes=4, runtime=LocalRuntime(), **arguments)
        for _ in range(2)
    )
    assert first == again
    assert seen == [False, False]


def test_the_surest_images_are_still_ranked() -> None:
    """In float32 both of the last two would be 1, and the wrong one as likely as the right one."""
    logits = torch.tensor([[0.0, -5.0], [0.0, 20.0], [0.0, 25.0]])
    assert metrics(logits, torch.tensor([0, 0, 1]), kind="binary")["auroc"] == 1.0


def test_calibration_error_is_the_papers() -> None:
    logits, labels = digits()
    confidence, predicted = (each.numpy() for each in logits.softmax(dim=1).double().max(dim=1))
    correct = predicted == labels.numpy()
    accuracy, mean_confidence = calibration_curve(correct, confidence, n_bins=15)
    count, _, _ = calibration_bins(confidence, correct)
    count = count[count > 0]
    expected = (count / count.sum() * np.abs(accuracy - mean_confidence)).sum()
    assert calibration_error(confidence, correct) == pytest.approx(expected)
    edges = np.array([0, 1 / 15, 1.01 / 15, 13.99 / 15, 14.01 / 15, 1.0])
    assert calibration_bins(edges, edges > 0)[0][[0, 1, 13, 14]].tolist() == [2, 1, 1, 2]


def test_top5_of_fewer_classes_is_everything() -> None:
    logits, labels = single(10, 3)
    assert in_top(logits, labels, k=5).sum().item() == 10
    assert in_top(logits, labels, k=1).sum().item() == (logits.argmax(dim=1) == labels).sum().item()


def test_multi_label_probabilities_are_each_labels_own() -> None:
    logits, labels = multi(20, 4)
    probabilities, truth = predict_probabilities(
        nn.Identity(), [(logits, labels)], kind="multilabel", preprocess=lambda images: images, precision=FP32
    )
    assert torch.allclose(probabilities.float(), logits.sigmoid())
    assert torch.equal(truth, labels)
