"""Trials that share a process: to the search they are trials like any other."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from optuna.trial import TrialState

from search.launch import TrialTask
from search.resources_config import ResourcesConfig
from search.trial_host import HostPool, TrialHost, _Desk, _Seats
from tests.search.cli import finish, run, start, summary_of, trials_of, write_space
from tests.search.test_losses import processes, wait_for_epochs
from trainables.config import DataConfig, TrialConfig
from trainables.fused import Outcome

pytestmark = [pytest.mark.ray, pytest.mark.slow]

FUSED = {"trials_per_device": 4, "fused": True}


def space_of(folder: Path, **sections: Any) -> Path:
    space = {
        "arch": "cnn",
        "cnn_width": 16,
        "lr": {"type": "float", "low": 1e-4, "high": 1e-3, "log": True},
        "dropout": {"type": "float", "low": 0.0, "high": 0.5},
        "batch_size": 128,
    }
    return write_space(folder, **{"space": space, "sampler": {"name": "random", "seed": 3}, **sections})


def test_fused_trials_find_what_they_find_alone(tmp_path: Path) -> None:
    curves = {}
    for name, resources in (("alone", {"max_concurrent_trials": 2}), ("fused", FUSED)):
        path = space_of(
            tmp_path / name,
            task={"data": {"name": "digits"}, "metric": "val_loss"},
            scheduler={"name": "none", "max_epochs": 2},
            budget={"trials": 6},
            resources=resources,
        )
        status, out, err = run(path, "--name", "run", "--storage-path", path.parent)
        assert (status, err) == (0, ""), out
        trials = trials_of(path.parent / "run")
        assert {trial.state for trial in trials} == {TrialState.COMPLETE}
        curves[name] = {tuple(trial.params.values()): list(trial.intermediate_values.values()) for trial in trials}
    assert len(curves["fused"]) == 6 and curves["fused"].keys() == curves["alone"].keys()
    for params, curve in curves["fused"].items():
        assert curve == pytest.approx(curves["alone"][params], rel=1e-3)


class LosesItsDevice(TrialHost):
    """A host on which every trial ends as one does after an error of the CUDA context."""

    def _train_for_ever(self) -> None:
        self._at_hand.append(self._tasks.get())
        candidate = self._next_trial()
        assert candidate is not None
        self._on_end(Outcome(candidate, metrics=None, error=torch.AcceleratorError("an illegal memory access")))


def test_a_trial_that_has_ended_is_no_longer_with_its_host() -> None:
    host = TrialHost(1)
    desk = host._desks["first"] = _Desk()
    host.judge("first", go_on=True)
    assert host._desks == {"first": desk}
    host.judge("first", go_on=False)
    assert host._desks == {}
    assert [desk.verdicts.get_nowait() for _ in range(2)] == [True, False]


def test_a_host_takes_fewer_trials_where_memory_runs_out_but_for_one_that_never_fits() -> None:
    pool = HostPool(ResourcesConfig(trials_per_device=16, fused=True))
    host = _Seats(host=None, most=16, begun=None, kinds={3: "a", 4: "a"})
    pool._hosts.append(host)
    assert pool.crowded(3, 8, alone=False)
    assert pool.crowded(4, 8, alone=False)
    assert host.most == 8, "of all that ran out of memory in one step"
    assert pool.crowded(3, 4, alone=True)
    assert host.most == 4
    assert not pool.crowded(3, 2, alone=True)
    pool.too_large(3)
    assert host.most == 16


def test_a_trial_waits_until_its_host_runs() -> None:
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        resources = ResourcesConfig(trials_per_device=2, fused=True)
        pool, other = HostPool(resources), HostPool(resources)
        assert pool.acquire(0, "a") is not None
        ray.get(pool._hosts[0].begun)
        assert 0 <= (pool.seated_s(0) or 0.0) < 60
        assert other.acquire(1, "a") is not None  # by count there is a CPU, which the other has
        assert other.seated_s(1) is None
        assert other.acquire(2, "a") is not None and other.acquire(3, "a") is None
        assert other.seated_s(3) is None, "it has just asked"
        assert (other.seated_s(4) or 0.0) > 60, "it never asked"
    finally:
        ray.shutdown()


def test_what_ends_a_process_is_told_before_it_ends(tmp_path: Path) -> None:
    (tmp_path / "trials" / "0000").mkdir(parents=True)
    (tmp_path / "environment.json").touch()
    trial = TrialConfig(data=DataConfig(name="digits"), arch="small_cnn").model_dump(mode="json")
    task = TrialTask(number=0, trial_dir=str(tmp_path / "trials" / "0000"), trial=trial, num_threads=1)
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        host: Any = ray.remote(LosesItsDevice).options(max_concurrency=4).remote(1)
        ray.get(host.submit.remote(task, "first"))
        heard = ray.get(host.heard.remote("first"))
        assert isinstance(heard, torch.AcceleratorError)
        with pytest.raises(ray.exceptions.RayActorError):
            for _ in range(100):
                ray.get(host.judge.remote("first", go_on=True))
                time.sleep(0.1)
    finally:
        ray.shutdown()


def test_trials_of_a_host_are_stopped_singly_and_go_on_when_it_is_killed(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    path = space_of(
        tmp_path,
        # Without looking back: whoever ends, ends at a rung.
        scheduler={"max_epochs": 27, "grace_period": 9, "reduction_factor": 3, "revisit": False},
        budget={"trials": 8},
        resources=FUSED,
    )
    with start(path, "--name", "run", "--storage-path", tmp_path) as process:
        wait_for_epochs(run_dir, more=3)
        os.kill(processes(process.pid, named="TrialHost")[0], signal.SIGKILL)
        status, out, err = finish(process)
    assert (status, err) == (0, ""), out
    trials = trials_of(run_dir)
    assert len(trials) == 8
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    for trial in trials:
        epochs = sorted(trial.intermediate_values)
        assert epochs == list(range(1, len(epochs) + 1)) and len(epochs) in (9, 27)
    assert summary_of(run_dir)["restarts"]["after_a_lost_worker"] >= 1
