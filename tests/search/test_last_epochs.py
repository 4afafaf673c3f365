"""What a trial had saved when the budget ended is in its record: the record and the weights are of one epoch."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.last_epochs import saved_epochs
from search.results import RunPaths
from tests.search.cli import TINY, leaderboard_of, run, write_space
from trainables.checkpoint import TrialFiles, best_metrics
from trainables.config import DataConfig, TrialConfig
from trainables.errors import SupersededError
from trainables.runtime import LocalRuntime
from trainables.train import train


class _CutOff(LocalRuntime):
    """After two epochs another is saved, and never reported."""

    def report(self, metrics: dict[str, float], *, last: bool = False) -> None:
        del last
        if metrics["epoch"] == 3:
            raise KeyboardInterrupt


def test_epochs_that_were_not_reported_are_read(tmp_path: Path) -> None:
    trial = TrialConfig(data=DataConfig(name="digits"), arch="small_cnn", batch_size=64, max_epochs=9, lr=1e-3)
    with pytest.raises(KeyboardInterrupt):
        train(trial, _CutOff(trial_dir=tmp_path, num_threads=1))
    saved = saved_epochs(tmp_path, best_epoch=2)
    assert [each["epoch"] for each in saved] == [1, 2, 3]
    files = TrialFiles(tmp_path)
    assert saved[-1]["best_epoch"] == 3
    assert saved[-1] == best_metrics(files)
    assert saved_epochs(tmp_path, best_epoch=3) == ()
    assert saved_epochs(tmp_path / "none", best_epoch=None) == ()
    files.previous_checkpoint.replace(files.checkpoint)  # cut off between weights and checkpoint
    assert saved_epochs(tmp_path, best_epoch=2) == saved


def test_whoever_trains_on_writes_nothing_more(tmp_path: Path) -> None:
    trial = TrialConfig(data=DataConfig(name="digits"), arch="small_cnn", batch_size=64, max_epochs=3)

    class _Ended(LocalRuntime):
        def report(self, metrics: dict[str, float], *, last: bool = False) -> None:
            del metrics, last
            saved_epochs(tmp_path, best_epoch=None)

    with pytest.raises(SupersededError):
        train(trial, _Ended(trial_dir=tmp_path, num_threads=1))


@pytest.mark.ray
def test_a_record_and_its_weights_are_of_one_epoch_and_a_spent_budget_stays_spent(tmp_path: Path) -> None:
    space = write_space(
        tmp_path,
        space={**TINY["space"], "lr": 1e-3},
        scheduler={"name": "none", "max_epochs": 30},
        budget={"epochs": 1},
        resources={"max_concurrent_trials": 2},
    )
    status, _, err = run(space, "--name", "a", "--storage-path", tmp_path)
    assert status == 0, err
    paths = RunPaths(tmp_path / "a")
    rows = leaderboard_of(paths.root)
    found = {number: best_metrics(TrialFiles(paths.trial(number))) for number in rows}
    assert {number: int(row["best_epoch"]) for number, row in rows.items() if row["best_epoch"]} == {
        number: metrics["epoch"] for number, metrics in found.items() if metrics is not None
    }
    before = paths.leaderboard.read_text()
    (paths.root).rename(tmp_path / "b")  # a study keeps the name that it was given
    status, out, err = run("--resume", "b", "--storage-path", tmp_path)
    assert status == 0, err
    assert "the budget of 1 epochs is used up" in out
    assert RunPaths(tmp_path / "b").leaderboard.read_text() == before
