"""Real trainings on the virtual clock of the comparison of search methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search.config import SearchConfig, load_search
from search.virtual_clock import report_of
from tests.benchmarks.trained_curves import TrainedCurves
from tests.search.cli import write_space
from trainables.runtime import LocalRuntime
from trainables.train import train


def search(tmp_path: Path, **space: Any) -> SearchConfig:
    lr = {"type": "float", "low": 1e-4, "high": 0.1, "log": True}
    small = {"arch": "cnn", "cnn_width": 8, "batch_size": 128, "dropout": 0.2, "lr": lr}
    return load_search(write_space(tmp_path, space={**small, **space}))


def test_trials_in_turn_train_as_each_alone(tmp_path: Path) -> None:
    config = search(tmp_path)
    curves = TrainedCurves(config, tmp_path / "run")
    one, two = (curves.curve({"arch": "cnn", "lr": lr}) for lr in (1e-3, 1e-2))
    for epoch in (1, 2, 3):
        assert one.seconds[epoch - 1] > 0 and two.seconds[epoch - 1] > 0
    for curve, lr in ((one, 1e-3), (two, 1e-2)):
        alone = LocalRuntime(num_threads=1)
        train(config.trial_config({"lr": lr}), alone)
        assert curve.values == [metrics["val_top1"] for metrics in alone.reported]
        assert curve.losses == [metrics["val_loss"] for metrics in alone.reported]
    best = max((one, two), key=lambda curve: max(curve.values))
    assert curves.test_score(best, epochs=len(best.values)) == pytest.approx(max(best.values), abs=0.1)


def test_what_was_trained_after_the_end_of_a_search_is_not_tested(tmp_path: Path) -> None:
    curves = TrainedCurves(search(tmp_path), tmp_path / "run")
    curve = curves.curve({"arch": "cnn", "lr": 1e-2})
    assert len(curve.until(3)) == 3 and curve.values[0] < 0.3 < curve.values[2]
    assert curves.test_score(curve, epochs=1) == pytest.approx(curve.values[0], abs=0.1)


def test_nothing_trains_before_it_is_asked_for(tmp_path: Path) -> None:
    curve = TrainedCurves(search(tmp_path), tmp_path / "run").curve({"lr": 1e-3})
    assert curve.values == [] and not (tmp_path / "run").exists()
    assert curve.seconds[1] > 0
    assert len(curve.values) == 2
    assert [report_of(curve, epoch).last for epoch in (1, 2)] == [False, False]  # type: ignore[arg-type]
