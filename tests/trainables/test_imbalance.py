"""Class weights keep the size of the loss; orders of an epoch keep what their names promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare
from sklearn.utils.class_weight import compute_class_weight

from trainables.config import DataConfig, TrialConfig
from trainables.errors import ConfigError
from trainables.imbalance import check_sampling, class_weights, epoch_order
from trainables.seeds import Stream, stream_seed

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(4), [600, 250, 120, 30]))
MULTI_LABELS = (np.random.default_rng(0).random((1000, 3)) < [0.5, 0.2, 0.03]).astype(np.uint8)


def config(**changes: object) -> TrialConfig:
    return TrialConfig.model_validate({"data": DataConfig(name="digits"), "seed": 3, **changes})


def weights(labels: np.ndarray, *, num_classes: int = 4, **changes: object) -> np.ndarray:
    found = class_weights(labels, num_classes=num_classes, config=config(**changes))
    assert found is not None
    return found


def test_inverse_weights_are_scikit_learns() -> None:
    expected = compute_class_weight("balanced", classes=np.arange(4), y=LABELS)
    assert weights(LABELS, class_weights="inverse") == pytest.approx(expected)
    assert class_weights(LABELS, num_classes=4, config=config()) is None


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999, 1 - 1e-12])
def test_effective_weights_are_the_papers_with_mean_one(beta: float) -> None:
    found = weights(LABELS, class_weights="effective", effective_beta=beta)
    assert found[LABELS].mean() == pytest.approx(1)
    effective_numbers = [sum(beta**k for k in range(n)) for n in np.bincount(LABELS)]  # 1 + beta + ... + beta^(n-1)
    assert found * effective_numbers == pytest.approx(found[0] * effective_numbers[0], rel=1e-3)


def test_a_class_without_images_is_left_alone() -> None:
    found = weights(np.array([0, 0, 0, 2]), num_classes=4, class_weights="inverse")
    assert found == pytest.approx([2 / 3, 1, 2, 1])


@pytest.mark.parametrize("kind", ["inverse", "effective"])
def test_weights_of_labels_have_mean_one_a_label(kind: str) -> None:
    labels = np.column_stack([MULTI_LABELS, np.zeros(1000, np.uint8), np.ones(1000, np.uint8)])
    found = weights(labels, num_classes=5, class_weights=kind, effective_beta=0.99)
    assert found.shape == (2, 5)
    for label in range(5):
        assert found[labels[:, label], label].mean() == pytest.approx(1)
    assert found[:, 3:].tolist() == [[1, 1], [1, 1]]
    assert found[1, 2] > found[1, 1] > 1 > found[0, 1]
    if kind == "inverse":
        present = MULTI_LABELS.sum(axis=0)
        assert found[1, :3] / found[0, :3] == pytest.approx((1000 - present) / present)  # pos_weight of torch


@pytest.mark.parametrize("sampling", ["shuffle", "oversample", "balanced"])
def test_an_order_is_fixed_by_seed_and_epoch(sampling: str) -> None:
    first = epoch_order(LABELS, config=config(sampling=sampling), epoch=1)
    assert (len(first), first.dtype) == (len(LABELS), np.int64)
    assert np.array_equal(first, epoch_order(LABELS, config=config(sampling=sampling), epoch=1))
    for other in (config(sampling=sampling, seed=4), config(sampling=sampling)):
        assert not np.array_equal(first, epoch_order(LABELS, config=other, epoch=2))
    assert not np.array_equal(first, epoch_order(LABELS, config=config(sampling=sampling, seed=4), epoch=1))


def test_shuffle_is_the_pinned_permutation() -> None:
    expected = np.random.default_rng(stream_seed(3, Stream.ORDER, 5)).permutation(len(LABELS))
    assert np.array_equal(epoch_order(LABELS, config=config(), epoch=5), expected)
    assert np.array_equal(epoch_order(MULTI_LABELS, config=config(), epoch=5), expected)


def test_oversampling_draws_classes_alike_and_images_of_a_class_alike() -> None:
    drawn = np.concatenate([epoch_order(LABELS, config=config(sampling="oversample"), epoch=e) for e in range(20)])
    assert chisquare(np.bincount(LABELS[drawn])).pvalue > 1e-3
    for label in range(4):
        assert chisquare(np.bincount(drawn, minlength=len(LABELS))[label == LABELS]).pvalue > 1e-3


def test_oversampling_goes_by_the_rarest_label_of_an_image() -> None:
    chosen = config(sampling="oversample")
    drawn = np.concatenate([epoch_order(MULTI_LABELS, config=chosen, epoch=e) for e in range(50)])
    counts = MULTI_LABELS.sum(axis=0)
    assert list(counts) == sorted(counts, reverse=True)
    rarest = np.where(MULTI_LABELS.any(axis=1), 2 - MULTI_LABELS[:, ::-1].argmax(axis=1), 3)
    chances = 1 / np.append(counts, (rarest == 3).sum())[rarest]
    expected = np.bincount(rarest, weights=chances / chances.sum()) * len(drawn)
    assert chisquare(np.bincount(rarest[drawn]), expected).pvalue > 1e-3


@pytest.mark.parametrize("batch_size", [1, 3, 4, 7, 10, 32, 64, 999, 5000])
def test_balanced_batches_have_as_many_of_every_class(batch_size: int) -> None:
    order = epoch_order(LABELS, config=config(sampling="balanced", batch_size=batch_size), epoch=0)
    size = min(batch_size, len(LABELS))
    assert len(order) == len(LABELS)
    for start in range(0, len(order), size):
        counts = np.bincount(LABELS[order[start : start + size]], minlength=4)
        assert counts.max() - counts.min() <= 1
    shown = np.bincount(LABELS[order], minlength=4)
    assert shown.max() - shown.min() <= 2  # those that have one more take turns
    for label in range(4):  # used up before any comes again
        times = np.bincount(order, minlength=len(LABELS))[label == LABELS]
        assert times.max() - times.min() <= 1


def test_balanced_batches_of_many_classes_with_gaps() -> None:
    """More classes than a batch holds, one of them without an image, most with a single one."""
    labels = np.concatenate([np.arange(50), np.full(250, 7)])
    labels = labels[labels != 20]
    order = epoch_order(labels, config=config(sampling="balanced", batch_size=8), epoch=0)
    for start in range(0, len(order), 8):
        assert np.bincount(labels[order[start : start + 8]]).max() == 1
    shown = np.bincount(labels[order])
    assert shown[20] == 0
    assert set(shown[np.arange(50) != 20]) == {6, 7}  # 299 places for 49 classes


def test_balanced_batches_are_mixed_inside() -> None:
    """Micro-batches are runs of a batch: BatchNorm must find all classes in each."""
    order = epoch_order(LABELS, config=config(sampling="balanced", batch_size=400), epoch=0)
    share = np.bincount(LABELS[order[:200]], minlength=4)
    assert share.sum() == 200
    assert chisquare(share).pvalue > 1e-3


def test_balanced_batches_of_multi_label_data_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"space\.sampling: balanced batches need images of one class .* oversample"):
        epoch_order(MULTI_LABELS, config=config(sampling="balanced"), epoch=0)
    check_sampling(config(sampling="oversample"), "multilabel")
