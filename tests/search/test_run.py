"""The main job from the command line to the last file, and every way in which it can end."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from optuna.trial import TrialState
from PIL import Image

from search.run import main
from tests.search.cli import TINY, finish, run, start, summary_of, trials_of, wait_until, write_space
from trainables.checkpoint import TrialFiles

pytestmark = pytest.mark.ray

SPACE_WITH_FAILURES = {
    "arch": "small_cnn",
    "lr": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True},
    "precision": {"type": "categorical", "values": ["fp32", "fp16"]},  # fp16 fails on the CPU
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A search that ran to its end: its folder and what it printed."""
    root = tmp_path_factory.mktemp("finished")
    space = write_space(root, augmentations={"mine": [{"Affine": {"rotate": [-5, 5], "p": 0.5}}]})
    status, out, err = run(space, "--name", "done", "--storage-path", root / "results", "-o", "space.augment=mine")
    assert (status, err) == (0, ""), out + err
    return root / "results" / "done", out


def test_everything_a_person_needs_is_there(finished: tuple[Path, str]) -> None:
    run_dir, _ = finished
    expected = {
        "config.yaml",
        "environment.json",
        "splits.csv",
        "study.log",
        "leaderboard.csv",
        "summary.json",
        "best_model/model.safetensors",
        "best_model/model.json",
        "test/metrics.json",
        "test/confusion_matrix.csv",
        "test/confusion_matrix.png",
        "test/per_class.csv",
        "test/predictions.csv",
        "logs/search.log",
    }
    assert {name for name in expected if not (run_dir / name).is_file()} == set()
    assert not (run_dir / "logs" / "tune").exists()  # scratch
    for number in range(4):
        assert list((run_dir / "trials" / f"{number:04d}").glob("events.out.tfevents.*"))
        assert not TrialFiles(run_dir / "trials" / f"{number:04d}").checkpoint.exists()


def test_the_numbers_agree_with_each_other(finished: tuple[Path, str]) -> None:
    run_dir, out = finished
    summary, trials = summary_of(run_dir), trials_of(run_dir)
    assert summary["state"] == "finished"
    assert len(trials) == 4
    with (run_dir / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    scores = [float(row["val_top1"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert summary["best"]["val_top1"] == pytest.approx(scores[0], abs=1e-6)
    assert summary["best"]["trial"] == summary["test"]["trial"] == int(rows[0]["trial"])
    assert max(max(trial.intermediate_values.values()) for trial in trials) == summary["best"]["val_top1"]

    matrix = np.loadtxt(run_dir / "test" / "confusion_matrix.csv", delimiter=",", skiprows=1, usecols=range(1, 11))
    test = summary["test"]
    assert matrix.sum() == test["images"]
    assert np.trace(matrix) / matrix.sum() == pytest.approx(test["top1"])
    assert test["interval95"][0] < test["top1"] < test["interval95"][1]
    assert f"test top-1 {test['top1']:.4f}" in out


def test_stopped_trials_are_pruned_and_the_rest_complete(finished: tuple[Path, str]) -> None:
    trials = trials_of(finished[0])
    for trial in trials:
        ran_to_the_end = max(trial.intermediate_values) == 3
        assert trial.state is (TrialState.COMPLETE if ran_to_the_end else TrialState.PRUNED)
    assert any(trial.state is TrialState.COMPLETE for trial in trials)


def test_splits_are_stored_disjoint_and_whole(finished: tuple[Path, str]) -> None:
    with (finished[0] / "splits.csv").open() as file:
        rows = [(int(row["row"]), row["split"]) for row in csv.DictReader(file)]
    assert sorted(row for row, _ in rows) == list(range(1797))
    assert {split for _, split in rows} == {"train", "val", "test"}


def test_the_terminal_stays_quiet(finished: tuple[Path, str]) -> None:
    run_dir, out = finished
    assert not any(word in out for word in ("WARNING", "INFO", "Traceback", "ray::"))
    assert "Started a local Ray instance" in (run_dir / "logs" / "search.log").read_text()
    for command in ("search.predict", "tensorboard --logdir", "optuna-dashboard"):
        assert command in out


def test_predict_names_classes(finished: tuple[Path, str], tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    for index in range(5):
        Image.fromarray((digits.images[index] * 15.9375).astype(np.uint8)).save(tmp_path / f"{index}.png")
    command = [sys.executable, "-m", "search.predict", finished[0], *sorted(tmp_path.glob("*.png"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == [str(tmp_path / f"{index}.png") for index in range(5)]
    assert sum(row[1] == str(digits.target[index]) for index, row in enumerate(rows)) >= 4
    assert all(0 <= float(row[2]) <= 1 for row in rows)


def test_predict_goes_on_past_a_broken_image(
    finished: tuple[Path, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from search.predict import main as predict

    (tmp_path / "broken.png").write_bytes(b"not an image")
    Image.new("L", (8, 8)).save(tmp_path / "whole.png")
    assert predict([str(finished[0]), str(tmp_path / "broken.png"), str(tmp_path / "whole.png")]) == 1
    out, err = capfd.readouterr()
    assert "whole.png" in out
    assert "broken.png" in err
    (tmp_path / "empty").mkdir()
    for arguments, told in (
        ([str(tmp_path / "empty")], "no image was found"),
        ([str(tmp_path / "whole.png"), "--device", "gpu"], "--device: gpu cannot be used here"),
        ([str(tmp_path / "whole.png"), "--device", "cuda:99"], "--device: cuda:99 cannot be used here"),
    ):
        assert predict([str(finished[0]), *arguments]) == 2
        assert told in capfd.readouterr().err
    with pytest.raises(SystemExit):
        predict([str(finished[0]), str(tmp_path / "whole.png"), "--top", "0"])
    assert "must be 1 or more, found 0" in capfd.readouterr().err


def test_a_finished_run_can_be_resumed_for_nothing(finished: tuple[Path, str]) -> None:
    run_dir, _ = finished
    before = summary_of(run_dir)
    opened = (run_dir / "test" / "metrics.json").stat().st_mtime_ns
    status, _, err = run("--resume", run_dir)
    assert (status, err) == (0, "")
    after = summary_of(run_dir)
    assert after["best"] == before["best"]
    assert after["trials"] == before["trials"]
    assert (run_dir / "test" / "metrics.json").stat().st_mtime_ns == opened  # the test split stays shut


def interrupted(space: Path, run_dir: Path) -> tuple[int, str, str]:
    """A run with Ctrl-C once a trial has ended."""
    process = start(space, "--name", run_dir.name, "--storage-path", run_dir.parent)
    wait_until(lambda: any(trial.state.is_finished() for trial in trials_of(run_dir)))
    process.send_signal(signal.SIGINT)
    return finish(process)


def test_ctrl_c_ends_cleanly_and_resume_goes_on(tmp_path: Path) -> None:
    space = write_space(tmp_path, scheduler={"name": "none", "max_epochs": 6}, budget={"trials": 5})
    run_dir = tmp_path / "results" / "cut"
    status, out, err = interrupted(space, run_dir)
    assert (status, err) == (130, "")
    assert f"python -m search.run --resume {run_dir}" in out
    assert summary_of(run_dir)["state"] == "interrupted"
    kept = {trial.number: trial for trial in trials_of(run_dir) if trial.state.is_finished()}

    status, out, err = run("--resume", run_dir)
    assert (status, err) == (0, ""), out
    trials = trials_of(run_dir)
    assert len(trials) == 5
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert all(trials[number] == trial for number, trial in kept.items())


@pytest.mark.slow
def test_an_interrupted_search_may_be_finished_with_what_there_is(tmp_path: Path) -> None:
    space = write_space(tmp_path, scheduler={"name": "none", "max_epochs": 6}, budget={"trials": 500})
    run_dir = tmp_path / "results" / "cut"
    status, out, _ = interrupted(space, run_dir)
    command = f"python -m search.run --resume {run_dir} --finish"
    assert status == 130 and command in out
    epochs = sum(len(trial.intermediate_values) for trial in trials_of(run_dir))

    status, out, err = run("--resume", run_dir, "--finish")
    assert (status, err) == (0, ""), out
    assert "test top-1" in out and "ended early: asked to finish with what there is" in out
    assert summary_of(run_dir)["state"] == "finished"
    assert not any(trial.state is TrialState.RUNNING for trial in trials_of(run_dir))
    told = sum(len(trial.intermediate_values) for trial in trials_of(run_dir))
    assert told <= epochs + 2, "nothing more was trained; two trials may have saved an epoch that they had not told"


def test_a_second_ctrl_c_ends_at_once_and_says_how_to_go_on(tmp_path: Path) -> None:
    space = write_space(tmp_path, scheduler={"name": "none", "max_epochs": 50}, budget={"trials": 5})
    run_dir = tmp_path / "results" / "cut"
    process = start(space, "--name", "cut", "--storage-path", tmp_path / "results")
    wait_until(lambda: any(trial.intermediate_values for trial in trials_of(run_dir)))
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert any(line.startswith("ending: ") for line in process.stdout)
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    resume = f"python -m search.run --resume {run_dir}"
    assert (status, err) == (130, f"ended at once; what had ended before is kept: {resume}\n")


def test_a_failing_trial_does_not_end_the_search(tmp_path: Path) -> None:
    space = write_space(
        tmp_path, space=SPACE_WITH_FAILURES, sampler={"name": "random", "seed": 0}, budget={"trials": 6}
    )
    status, out, _ = run(space, "--name", "some", "--storage-path", tmp_path)
    assert status == 0
    summary = summary_of(tmp_path / "some")
    assert summary["trials"]["failed"] > 0
    assert summary["trials"]["completed"] > 0
    assert {failure["cause"] for failure in summary["failures"]} == {"ConfigError"}
    assert "fp16 needs a CUDA device" in out


def test_the_same_failure_from_the_start_ends_it(tmp_path: Path) -> None:
    space = write_space(tmp_path, space={**SPACE_WITH_FAILURES, "precision": "fp16"}, budget={"trials": 50})
    status, out, _ = run(space, "--name", "none", "--storage-path", tmp_path)
    assert status == 1
    assert "the first 3 trials all failed alike" in out
    assert "fp16 needs a CUDA device" in out
    assert summary_of(tmp_path / "none")["trials"]["failed"] < 10


def test_a_request_that_the_machine_cannot_meet_is_refused(tmp_path: Path) -> None:
    space = write_space(tmp_path, resources={"cpus_per_worker": 1000})
    status, _, err = run(space, "--name", "huge", "--storage-path", tmp_path)
    assert status == 2
    assert f"one trial needs 1 worker of 1000 CPU; the largest node has {os.cpu_count()} CPU (1 node with" in err
    assert "lower resources.cpus_per_worker, or give --address of a larger cluster" in err
    assert not (tmp_path / "huge").exists()


@pytest.mark.slow
def test_one_at_a_time_repeats_exactly(tmp_path: Path) -> None:
    space = write_space(
        tmp_path, resources={"max_concurrent_trials": 1}, sampler={"seed": 5, "startup_trials": 2}, budget={"trials": 4}
    )
    for name in ("one", "two"):
        status, _, err = run(space, "--name", name, "--storage-path", tmp_path)
        assert (status, err) == (0, "")
    one, two = trials_of(tmp_path / "one"), trials_of(tmp_path / "two")
    assert [(t.params, t.intermediate_values, t.state) for t in one] == [
        (t.params, t.intermediate_values, t.state) for t in two
    ]
    assert summary_of(tmp_path / "one")["test"] == summary_of(tmp_path / "two")["test"]


def test_dry_run_shows_the_search_and_trains_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    space = write_space(tmp_path, start_from=[{"lr": 0.005, "batch_size": 128}])
    assert main([str(space), "--dry-run", "--storage-path", str(tmp_path / "results")]) == 0
    out, _ = capfd.readouterr()
    for shown in ("max_epochs: 3", "0.001 … 0.01, log", "0.005", "small_cnn", "1,079 train"):
        assert shown in out
    assert not (tmp_path / "results").exists()


def test_what_a_person_waits_for_imports_nothing_heavy(tmp_path: Path) -> None:
    """The imports of these libraries take seconds."""
    heavy = ["torch", "ray", "timm", "torchvision", "albumentations", "sklearn", "pandas", "plotly"]
    code = f"""
import sys
import time
from search.run import main
try:
    status = main(sys.argv[1:])
except SystemExit as end:
    status = end.code
assert not status, status
print("heavy:", sorted(set({heavy}) & set(sys.modules)))
"""
    for arguments in (["--help"], [write_space(tmp_path), "--dry-run", "--quick"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[-1] == "heavy: []"
    assert "0.001 … 0.01, log" in done.stdout and "not looked at: images" in done.stdout


def test_a_name_is_taken_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").mkdir()
    assert main([str(write_space(tmp_path)), "--name", "taken", "--storage-path", str(tmp_path)]) == 2
    assert "a run of this name exists; go on with --resume taken" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["../outside", "a/b", "", ".hidden", "a b"])
def test_a_name_stays_inside_the_results(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    status = main([str(write_space(tmp_path)), f"--name={name}", "--storage-path", str(tmp_path), "--dry-run"])
    assert status == 2
    assert "is not a usable folder name" in capfd.readouterr().err


def test_an_unknown_run_lists_those_there_are(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "config.yaml").write_text("task: {}")
    assert main(["--resume", "gone", "--storage-path", str(tmp_path)]) == 2
    assert "no such run" in (err := capfd.readouterr().err)
    assert "here" in err


def test_tiny_is_a_valid_space() -> None:
    from search.config import SearchConfig

    SearchConfig.model_validate(TINY)


@pytest.mark.parametrize("what", [["--schema"], ["--dry-run", "--quick"]])
def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path, what: list[str]) -> None:
    command = [sys.executable, "-m", "search.run", str(write_space(tmp_path)), *what]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        told = process.stderr.read().decode()
    assert "Traceback" not in told and "BrokenPipe" not in told, told
