"""`kill -9` of the driver, at moments drawn by seed, and a resume after each."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import TrialState

from tests.search.cli import run, start, trials_of, wait_until, write_space
from trainables.checkpoint import TrialFiles, load_checkpoint

pytestmark = [pytest.mark.ray, pytest.mark.slow]

KILLS = 3
TRIALS = 24


def outcomes(run_dir: Path) -> dict[int, Any]:
    """What is on record of every finished trial."""
    return {
        trial.number: (trial.state, trial.params, trial.intermediate_values, trial.value)
        for trial in trials_of(run_dir)
        if trial.state.is_finished() and "not_run" not in trial.user_attrs
    }


def wait_until_more(run_dir: Path, *, than: int) -> None:
    """Waits until more trials than that have finished."""
    wait_until(lambda: len(outcomes(run_dir)) > than)


def epochs_in_checkpoints(run_dir: Path) -> dict[int, int]:
    """Epochs that running trials have saved, by trial."""
    saved = {}
    for trial in trials_of(run_dir):
        if trial.state is TrialState.RUNNING:
            path = TrialFiles(run_dir / "trials" / f"{trial.number:04d}").checkpoint
            state = load_checkpoint(path, device=torch.device("cpu"))
            saved[trial.number] = state["epoch"] if state else 0
    return saved


def first_logged(run_dir: Path, number: int) -> dict[int, float]:
    """Wall-clock time at which each epoch of a trial was first trained, from its TensorBoard files."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    times: dict[int, float] = {}
    for path in sorted((run_dir / "trials" / f"{number:04d}").glob("events.*")):
        for event in EventFileLoader(str(path)).Load():
            if any(value.tag == "loss/train" for value in event.summary.value):
                assert event.step not in times, f"epoch {event.step} of trial {number} was trained twice"
                times[event.step] = event.wall_time
    return times


@pytest.mark.parametrize("seed", [1])
def test_three_kills_lose_nothing(tmp_path: Path, seed: int) -> None:
    moments = random.Random(seed)
    run_dir = tmp_path / "results" / "killed"
    space = write_space(tmp_path, scheduler={"max_epochs": 9, "grace_period": 1}, budget={"trials": TRIALS})
    command: list[str | Path] = [space, "--name", "killed", "--storage-path", tmp_path / "results"]
    kept: dict[int, Any] = {}
    for _ in range(KILLS):
        with start(*command) as process:
            wait_until_more(run_dir, than=len(kept) + moments.randint(0, 3))
            time.sleep(moments.uniform(0, 1))
            process.send_signal(signal.SIGKILL)
        time.sleep(3)  # Ray's processes follow the driver into death
        now = outcomes(run_dir)
        assert len(now) < TRIALS, "the search was over before it could be killed"
        assert {number: now[number] for number in kept} == kept, "a finished trial changed"
        kept, saved = now, epochs_in_checkpoints(run_dir)
        command = ["--resume", run_dir]

    status, out, err = run(*command)
    assert (status, err) == (0, ""), out
    final = outcomes(run_dir)
    assert {number: final[number] for number in kept} == kept, "a finished trial changed"
    assert len(final) == TRIALS
    assert len({tuple(params.items()) for _, params, _, _ in final.values()}) == TRIALS, "a trial was run twice"
    assert not [trial for trial in trials_of(run_dir) if trial.state is TrialState.RUNNING]
    for number, (_, _, curve, _) in final.items():
        assert sorted(curve) == list(range(1, max(curve) + 1)), "an epoch of a curve is missing"
        first_logged(run_dir, number)  # no epoch was trained twice: each trial went on from its checkpoint
    for number, epochs in saved.items():
        assert max(final[number][2]) >= epochs
