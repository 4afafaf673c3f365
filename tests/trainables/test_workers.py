"""The number of workers changes speed, not results: 1, 2 and 4 with the same global batch."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainables.group import curve_of, train_on
from trainables.config import DataConfig, TrialConfig
from trainables.runtime import LocalRuntime
from trainables.train import train

# Sums are added up in another order, nothing else differs; without BatchNorm and dropout, which are per worker.
TOLERANCE = 1e-2
# Of 359 images two may lie so close to the border between classes that rounding decides.
TOLERANCE_OF_COUNTS = 2 / 359 + 1e-9


def config(**changes: object) -> TrialConfig:
    base = {"data": DataConfig(name="digits"), "arch": "small_cnn", "max_epochs": 2, "batch_size": 64, "lr": 3e-3}
    return TrialConfig.model_validate({**base, **changes})


MIXED = {
    "augment": "randaugment",
    "mixup_alpha": 0.4,
    "cutmix_alpha": 1.0,
    "erasing": 0.3,
    "class_weights": "inverse",
    "sampling": "oversample",
    "ema_decay": 0.99,
    "grad_clip_norm": 1.0,
}


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("changes", [{}, MIXED], ids=["plain", "everything"])
def test_more_workers_same_curve(tmp_path: Path, workers: int, changes: dict[str, object]) -> None:
    alone = LocalRuntime(num_threads=1)
    train(config(**changes), alone)
    group = train_on(workers, config(**changes), tmp_path / "group")
    for names, tolerance in (
        (("train_loss", "val_loss"), TOLERANCE),
        (("train_top1", "val_top1"), TOLERANCE_OF_COUNTS),
    ):
        for one, other in zip(curve_of(alone.reported, *names), curve_of(group, *names), strict=True):
            assert other == pytest.approx(one, abs=tolerance)
