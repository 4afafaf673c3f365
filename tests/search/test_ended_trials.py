"""The files of ended trials go, once the study is where a resume reads it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from search import ended_trials
from search.config import SearchConfig
from search.ended_trials import EndedTrials
from search.ledger import Status, TrialRecord
from search.results import RunPaths
from tests.search.cli import TINY
from trainables.checkpoint import TrialFiles


def ended(number: int) -> TrialRecord:
    return TrialRecord(number=number, params={}, status=Status.COMPLETED, score=0.5, val_loss=1.0)


def save(paths: RunPaths, number: int) -> None:
    files = TrialFiles(paths.trial(number))
    files.trial_dir.mkdir(parents=True)
    for path in (*files.checkpoints, files.attempt, files.best_weights):
        path.touch()


def left(paths: RunPaths) -> set[str]:
    return {path.relative_to(paths.trials).as_posix() for path in paths.trials.rglob("*") if path.is_file()}


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    paths = RunPaths(tmp_path / "run")
    for number in range(3):
        save(paths, number)
    return paths


CONFIG = SearchConfig.model_validate(TINY)
WEIGHTS = {f"{number:04d}/best.safetensors" for number in range(3)}


def test_only_weights_are_left(paths: RunPaths) -> None:
    trials = EndedTrials(CONFIG, paths)
    for number in range(3):
        trials.add(ended(number))
    assert left(paths) == WEIGHTS


def test_what_a_killed_driver_left_goes(paths: RunPaths) -> None:
    running = TrialRecord(number=2, params={}, status=Status.RUNNING)
    EndedTrials(CONFIG, paths).take_up([ended(0), ended(1), running])
    files = TrialFiles(paths.trial(2))
    own = {path.relative_to(paths.trials).as_posix() for path in (*files.checkpoints, files.attempt)}
    assert left(paths) == {*WEIGHTS, *own}


def test_a_store_that_takes_long_is_sent_the_study_less_often(paths: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Path] = []

    def publish(path: Path) -> None:
        time.sleep(0.05)
        sent.append(path)

    monkeypatch.setattr(ended_trials, "publish", publish)
    trials = EndedTrials(CONFIG, paths)
    for number in range(3):
        trials.add(ended(number))
    assert (len(sent), "0000/checkpoint.pt" in left(paths), "0001/checkpoint.pt" in left(paths)) == (1, False, True)
    trials.tidy_up()
    assert (len(sent), left(paths)) == (2, WEIGHTS)
