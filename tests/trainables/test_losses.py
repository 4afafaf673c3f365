"""Losses: what the papers and the libraries say, for hard, soft and multi-label targets, whole or in parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from timm.loss import BinaryCrossEntropy
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from trainables.errors import ConfigError
from trainables.hyperparameters import Hyperparameters
from trainables.losses import Loss, build_loss, check_loss, plain_losses

B, C = 24, 5
CPU = torch.device("cpu")
LABELS = np.repeat(np.arange(C), [50, 30, 12, 6, 2])
MULTI_LABELS = (np.random.default_rng(0).random((200, C)) < [0.5, 0.3, 0.1, 0.05, 0.02]).astype(np.uint8)


def loss_of(*, labels: np.ndarray = LABELS, **changes: object) -> Loss:
    return build_loss(Hyperparameters.model_validate(changes), labels=labels, num_classes=C, device=CPU)


def batch(kind: str, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits and targets: hard, soft (as mixed images have them) or multi-label."""
    rng = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(B, C, generator=rng)
    if kind == "multilabel":
        return logits, (torch.rand(B, C, generator=rng) < 0.3).float()
    classes = torch.randint(C, (2, B), generator=rng)
    if kind == "hard":
        return logits, classes[0]
    lam = torch.rand(B, 1, generator=rng)
    one, other = F.one_hot(classes[0], C).float(), F.one_hot(classes[1], C).float()
    return logits, lam * one + (1 - lam) * other


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs_to_the_bit(label_smoothing: float) -> None:
    for kind in ("hard", "soft"):
        logits, targets = batch(kind)
        expected = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=label_smoothing)
        assert torch.equal(loss_of(label_smoothing=label_smoothing)(logits, targets), expected)


def test_focal_loss_is_the_papers() -> None:
    logits, labels = batch("hard")
    p = logits.double().softmax(dim=1)[torch.arange(B), labels]
    expected = (-((1 - p) ** 1.5) * p.log()).sum()
    assert loss_of(loss="focal", focal_gamma=1.5)(logits, labels).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("class_weights", ["none", "inverse"])
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_focal_loss_without_focus_is_cross_entropy(kind: str, class_weights: str) -> None:
    logits, targets = batch(kind)
    common = {"label_smoothing": 0.1, "class_weights": class_weights}
    focal, plain = loss_of(loss="focal", focal_gamma=0, **common), loss_of(loss="cross_entropy", **common)
    assert focal(logits, targets).item() == pytest.approx(plain(logits, targets).item(), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_multi_label_focal_loss_is_torchvisions(gamma: float) -> None:
    logits, targets = batch("multilabel")
    expected = sigmoid_focal_loss(logits, targets, alpha=-1, gamma=gamma).mean(dim=1).sum()
    found = loss_of(labels=MULTI_LABELS, loss="focal", focal_gamma=gamma)(logits, targets)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_bce_is_timms(label_smoothing: float) -> None:
    logits, labels = batch("hard")
    reference = BinaryCrossEntropy(smoothing=label_smoothing, sum_classes=True)
    found = loss_of(loss="bce", label_smoothing=label_smoothing)(logits, labels)
    assert found.item() == pytest.approx(B * reference(logits - np.log(C - 1), labels).item(), rel=1e-6)

    logits, answers = batch("multilabel")
    reference = BinaryCrossEntropy(smoothing=label_smoothing, smooth_dense=True)
    found = loss_of(labels=MULTI_LABELS, loss="auto", label_smoothing=label_smoothing)(logits, answers)
    assert found.item() == pytest.approx(B * reference(logits, answers).item(), rel=1e-6)


ALL = [
    ("hard", {"loss": "cross_entropy", "class_weights": "inverse", "label_smoothing": 0.1}),
    ("soft", {"loss": "cross_entropy", "class_weights": "effective", "label_smoothing": 0.1}),
    ("hard", {"loss": "focal", "class_weights": "effective", "label_smoothing": 0.1}),
    ("soft", {"loss": "focal", "class_weights": "inverse", "focal_gamma": 0.5}),
    ("hard", {"loss": "bce", "class_weights": "inverse"}),
    ("soft", {"loss": "bce", "class_weights": "effective", "label_smoothing": 0.1}),
    ("multilabel", {"loss": "bce", "class_weights": "inverse", "label_smoothing": 0.1}),
    ("multilabel", {"loss": "focal", "class_weights": "effective"}),
]


@pytest.mark.parametrize(("kind", "changes"), ALL)
def test_parts_of_a_batch_add_up(kind: str, changes: dict[str, object]) -> None:
    logits, targets = batch(kind)
    loss = loss_of(labels=MULTI_LABELS if kind == "multilabel" else LABELS, **changes)
    whole = loss(logits, targets)
    parts = sum(loss(logits[part], targets[part]) for part in torch.arange(B).split([7, 1, 16]))
    assert whole.dtype == torch.float32
    assert whole.item() == pytest.approx(float(parts), rel=1e-6)
    assert loss(logits.bfloat16(), targets).dtype == torch.float32


@pytest.mark.parametrize(("kind", "changes"), ALL)
def test_gradients_are_the_slopes_and_finite_where_the_network_is_sure(kind: str, changes: dict[str, object]) -> None:
    logits, targets = batch(kind)
    loss = loss_of(labels=MULTI_LABELS if kind == "multilabel" else LABELS, **changes)
    (slope,) = torch.autograd.grad(loss(logits.requires_grad_(), targets), logits)
    for seed in range(3):  # along random directions; float32 differences are good to a few digits
        towards = torch.randn(B, C, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            rise = (loss(logits + 5e-3 * towards, targets) - loss(logits - 5e-3 * towards, targets)) / 1e-2
        assert rise.item() == pytest.approx((slope * towards).sum().item(), rel=0.01, abs=0.02)

    sure = (300 * torch.randn(B, C, generator=torch.Generator().manual_seed(0))).requires_grad_()
    (slope,) = torch.autograd.grad(loss(sure, targets), sure)
    assert slope.isfinite().all()


def test_bce_of_an_undecided_network_asks_only_for_the_right_class() -> None:
    logits = torch.zeros(1, C, requires_grad=True)
    (slope,) = torch.autograd.grad(loss_of(loss="bce")(logits, torch.tensor([2])), logits)
    assert slope.sum().item() == pytest.approx(0, abs=1e-6)
    assert slope[0].tolist() == pytest.approx([1 / C, 1 / C, 1 / C - 1, 1 / C, 1 / C])  # as of cross-entropy


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "bce"])
def test_a_mixed_image_costs_the_mix_of_its_parts(loss: str) -> None:
    logits, _ = batch("hard")
    ends = [batch("hard", seed=seed)[1] for seed in (1, 2)]
    mixed = 0.3 * F.one_hot(ends[0], C) + 0.7 * F.one_hot(ends[1], C)
    found = loss_of(loss=loss, label_smoothing=0.1)
    expected = 0.3 * found(logits, ends[0]) + 0.7 * found(logits, ends[1])
    assert found(logits, mixed).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(("loss", "label_smoothing"), [("cross_entropy", 0.0), ("focal", 0.0), ("bce", 0.1)])
def test_weights_count_an_image_of_a_class_so_often(loss: str, label_smoothing: float) -> None:
    """`inverse` gives every class of the training split the same total weight: that of copies of its images."""
    rng = np.random.default_rng(0)
    counts = np.bincount(LABELS)
    logits = torch.from_numpy(rng.normal(size=(len(LABELS), C)))
    plain = loss_of(loss=loss, label_smoothing=label_smoothing)
    per_class = [plain(logits[c == LABELS], torch.full((counts[c],), c)).item() / counts[c] for c in range(C)]
    weighted = loss_of(loss=loss, label_smoothing=label_smoothing, class_weights="inverse")
    assert weighted(logits, torch.from_numpy(LABELS)).item() == pytest.approx(
        len(LABELS) * np.mean(per_class), rel=1e-5
    )


def test_rare_labels_weigh_their_presence() -> None:
    loss = loss_of(labels=MULTI_LABELS, loss="bce", class_weights="inverse")
    undecided, present = torch.zeros(1, C), torch.eye(C)
    costs = [loss(undecided, answer[None]).item() for answer in present]
    assert costs == sorted(costs)  # the labels are ordered from common to rare
    assert loss(torch.zeros(200, C), torch.from_numpy(MULTI_LABELS)).item() == pytest.approx(200 * np.log(2), rel=1e-5)


def test_plain_loss_knows_no_hyperparameters() -> None:
    logits, labels = batch("hard")
    assert torch.equal(plain_losses(logits, labels).sum(), F.cross_entropy(logits, labels, reduction="none").sum())
    assert plain_losses(logits, labels).shape == (B,)
    logits, answers = batch("multilabel")
    expected = B * F.binary_cross_entropy_with_logits(logits, answers).item()
    assert plain_losses(logits, answers.to(torch.uint8)).sum().item() == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_of_multi_label_data_is_refused() -> None:
    config = Hyperparameters(loss="cross_entropy")
    check_loss(config, "multiclass")
    with pytest.raises(ConfigError, match=r"space\.loss: cross_entropy is for images of one class .* use auto, bce"):
        check_loss(config, "multilabel")
    with pytest.raises(ConfigError, match=r"space\.loss"):
        loss_of(labels=MULTI_LABELS, loss="cross_entropy")
