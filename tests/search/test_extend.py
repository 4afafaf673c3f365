"""A run that goes on beyond its budget: new points, old ones kept, and no silence about a second look at the test."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from search.config import SearchConfig, load_search
from search.extend import Used, extended, used_by
from search.final import evaluate_winner
from search.list import main
from search.report_source import read_source
from search.results import RunPaths
from search.run import _parse
from search.which_run import choose_run
from tests.search.cli import leaderboard_of, run, start, trials_of, wait_until, write_space
from trainables.config import DataConfig, TrialConfig
from trainables.errors import ConfigError
from trainables.runtime import LocalRuntime
from trainables.train import train

USED = Used(trials=12, epochs=100, device_hours=0.5, elapsed_s=60.0)


def search(folder: Path) -> SearchConfig:
    return load_search(write_space(folder, budget={"trials": 12, "time": "1m"}))


@pytest.mark.parametrize(
    ("asked", "budget"),
    [
        (["+30"], {"trials": 42}),
        (["+2h"], {"time": 7260.0}),
        (["+1.5m"], {"time": 150.0}),
        (["+50epochs"], {"epochs": 150}),
        (["+1device-hours", "+3"], {"device_hours": 1.5, "trials": 15}),
    ],
)
def test_a_new_budget_is_counted_from_what_was_used(tmp_path: Path, asked: list[str], budget: dict[str, float]) -> None:
    after = extended(search(tmp_path), USED, asked).budget
    assert after.model_dump(exclude_none=True) == budget


def test_what_an_interrupted_run_had_left_comes_on_top(tmp_path: Path) -> None:
    used = Used(trials=3, epochs=10, device_hours=0.1, elapsed_s=20.0)
    for asked, budget in ((["+1"], {"trials": 13}), (["+1m"], {"time": 120.0}), (["+5epochs"], {"epochs": 15})):
        after = extended(search(tmp_path), used, asked, ended=False).budget
        assert after.model_dump(exclude_none=True) == budget


@pytest.mark.parametrize("asked", ["30", "+", "+0", "+1.5", "+2y", "-3", "+0.5epochs", "trials"])
def test_what_is_no_extension_is_refused(tmp_path: Path, asked: str) -> None:
    with pytest.raises(ConfigError, match=r"--extend: must be by how much, found .*write \+30"):
        extended(search(tmp_path), USED, [asked])


def test_two_of_a_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="time is extended twice"):
        extended(search(tmp_path), USED, ["+1h", "+30m"])


@pytest.mark.ray
@pytest.mark.slow
def test_a_finished_run_goes_on_with_new_points(tmp_path: Path) -> None:
    space = write_space(tmp_path, budget={"trials": 2}, keep={"top": 1}, resources={"max_concurrent_trials": 1})
    status, _, err = run(space, "--name", "a", "--storage-path", tmp_path)
    assert status == 0, err
    paths = RunPaths(tmp_path / "a")
    before = leaderboard_of(paths.root)
    status, out, err = run("--resume", "a", "--storage-path", tmp_path, "--extend", "+2")
    assert status == 0, err
    after = leaderboard_of(paths.root)
    assert sorted(after) == [0, 1, 2, 3]
    columns = ("status", "val_top1", "epochs", "lr", "batch_size")
    assert all(after[number][name] == before[number][name] for number in before for name in columns)
    assert len({(row["lr"], row["batch_size"]) for row in after.values()}) == 4
    assert load_search(paths.config).budget.trials == 4
    history = json.loads(paths.environment.read_text())["extended"]
    assert [each["asked"] for each in history] == [["+2"]]
    weights = sorted(path.parent.name for path in paths.trials.glob("*/best.safetensors"))
    winner = json.loads(paths.summary.read_text())["best"]["trial"]
    assert weights == [f"{winner:04d}"]  # keep.top: 1
    assert used_by(load_search(paths.config), paths).trials == 4
    assert "resuming a: digits, 4 trials" in out


@pytest.mark.ray
@pytest.mark.slow
def test_what_is_left_of_an_extension_that_was_killed_comes_on_top(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = write_space(tmp_path, budget={"trials": 2})
    status, _, err = run(space, "--name", "a", "--storage-path", tmp_path)
    assert status == 0, err
    paths = RunPaths(tmp_path / "a")
    with start("--resume", paths.root, "--extend", "+60") as process:
        wait_until(lambda: len(trials_of(paths.root)) > 4)
        process.send_signal(signal.SIGKILL)
    capsys.readouterr()
    main(["--storage-path", str(tmp_path)])
    assert "unfinished" in capsys.readouterr().out
    again = choose_run(_parse(["--resume", str(paths.root), "--extend", "+5"]))
    assert again.config.budget.trials == 67
    assert read_source(paths).state == "unfinished"


def test_a_second_winner_leaves_the_first_test_on_record(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path / "run")
    trial = TrialConfig(data=DataConfig(name="digits"), arch="small_cnn", batch_size=64, max_epochs=1)
    for number in (0, 1):
        train(trial, LocalRuntime(trial_dir=paths.trial(number), num_threads=1))
    found = [evaluate_winner(trial.model_dump(mode="json"), number=number, run=str(paths.root)) for number in (0, 1, 1)]
    assert [each["trial"] for each in found] == [0, 1, 1]
    assert found[0]["earlier"] == []
    assert found[2] == found[1]  # not opened again for the same winner
    assert [(each["trial"], each["top1"]) for each in found[1]["earlier"]] == [(0, found[0]["top1"])]
