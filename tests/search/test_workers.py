"""One worker or two: the same training function, the same curve."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.search.cli import run, summary_of, trials_of, write_space

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# The same sums in another order: float32 rounding, amplified by three epochs of training.
TOLERANCE = 0.01


@pytest.mark.parametrize("augment", ["none", "randaugment"])
def test_two_workers_train_the_curve_of_one(tmp_path: Path, augment: str) -> None:
    curves = {}
    for workers in (1, 2):
        path = write_space(
            tmp_path / str(workers),
            task={"data": {"name": "digits"}, "metric": "val_loss"},
            space={"arch": "small_cnn", "lr": 0.003, "batch_size": 64, "optimizer": "adamw", "augment": augment},
            scheduler={"name": "none", "max_epochs": 3},
            budget={"trials": 1},
            resources={"workers": workers},
        )
        status, out, err = run(path, "--name", "run", "--storage-path", path.parent)
        assert (status, err) == (0, ""), out
        (trial,) = trials_of(path.parent / "run")
        curves[workers] = trial.intermediate_values
    assert curves[2] == pytest.approx(curves[1], abs=TOLERANCE)


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
