"""One worker or two: the same training function, the same curve."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.search.cli import run, summary_of, trials_of, write_space

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# The same sums in another order: float32 rounding, amplified by three epochs of training. Top-1 moves by whole
# images, of which the validation split has 359.
LOSS_TOLERANCE = 0.01
TOP1_TOLERANCE = 2 / 359


@pytest.mark.parametrize("augment", ["none", "randaugment"])
def test_two_workers_train_the_curve_of_one(tmp_path: Path, augment: str) -> None:
    space = {"arch": "small_cnn", "lr": 0.003, "batch_size": 64, "optimizer": "adamw", "augment": augment}
    curves = {}
    for metric, workers in (("val_top1", 1), ("val_top1", 2), ("val_loss", 1), ("val_loss", 2)):
        if augment != "none" and metric == "val_top1":
            continue
        path = write_space(
            tmp_path / f"{metric}{workers}",
            task={"data": {"name": "digits"}, "metric": metric},
            space=space,
            scheduler={"name": "none", "max_epochs": 3},
            budget={"trials": 1},
            resources={"workers": workers},
        )
        status, out, err = run(path, "--name", "run", "--storage-path", path.parent)
        assert (status, err) == (0, ""), out
        (trial,) = trials_of(path.parent / "run")
        curves[metric, workers] = trial.intermediate_values
    tolerance = {"val_top1": TOP1_TOLERANCE, "val_loss": LOSS_TOLERANCE}
    for metric in {metric for metric, _ in curves}:
        assert curves[metric, 2] == pytest.approx(curves[metric, 1], abs=tolerance[metric])


def test_asha_stops_worker_groups_and_frees_them(tmp_path: Path) -> None:
    """With two CPUs only one group fits: were a stopped one not freed, the next would wait for ever."""
    path = write_space(
        tmp_path,
        scheduler={"max_epochs": 6, "grace_period": 1, "reduction_factor": 2},
        budget={"trials": 4},
        resources={"workers": 2},
    )
    status, out, err = run(path, "--name", "run", "--storage-path", tmp_path)
    assert (status, err) == (0, ""), out
    summary = summary_of(tmp_path / "run")
    assert summary["trials"]["stopped"] >= 1
    assert sum(summary["trials"].values()) == 4
