"""`kill -9` of what trains, at moments drawn by seed: no trial fails or is lost, no epoch is trained twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.search.cli import finish, run, start, summary_of, trials_of, wait_until, write_space
from tests.search.test_kill import first_logged, outcomes, wait_until_more

pytestmark = [pytest.mark.ray, pytest.mark.slow]

LONG = {"name": "none", "max_epochs": 8}


def processes(driver: int, *, named: str) -> list[int]:
    """Processes of Ray below a driver whose title contains a text, by age."""
    parents, titles = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            titles[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            parents[int(folder.name)] = int(status[1])
        except OSError:
            continue

    def below(pid: int) -> bool:
        while pid > 1 and pid != driver:
            pid = parents.get(pid, 0)
        return pid == driver

    return sorted(pid for pid, title in titles.items() if title.startswith("ray::") and named in title and below(pid))


def test_a_killed_actor_costs_no_trial(tmp_path: Path) -> None:
    moments = random.Random(1)
    run_dir = tmp_path / "killed"
    space = write_space(tmp_path, scheduler=LONG, budget={"trials": 5})
    with start(space, "--name", "killed", "--storage-path", tmp_path) as process:
        for count in range(2):
            wait_until_more(run_dir, than=count - 1)
            time.sleep(moments.uniform(0, 2))
            trainers = processes(process.pid, named="ImplicitFunc.train")
            if trainers:
                os.kill(moments.choice(trainers), signal.SIGKILL)
        status, out, err = finish(process)
    assert (status, err) == (0, ""), out
    final = outcomes(run_dir)
    assert len(final) == 5
    assert {state for state, *_ in final.values()} == {TrialState.COMPLETE}
    for number, (_, _, curve, _) in final.items():
        assert sorted(curve) == list(range(1, 9)), "an epoch of a curve is missing"
        first_logged(run_dir, number)  # no epoch was trained twice
    restarts = summary_of(run_dir)["restarts"]
    assert restarts["after_a_lost_worker"] >= 1
    assert "after a lost worker" in out


def test_a_group_that_loses_a_process_goes_on(tmp_path: Path) -> None:
    """A worker first, and when the group trains again, its controller."""
    run_dir = tmp_path / "killed"
    # Time to find a process and to kill it before the trial is over.
    scheduler = {"name": "none", "max_epochs": 60}
    space = write_space(tmp_path, scheduler=scheduler, budget={"trials": 1}, resources={"workers": 2})
    with start(space, "--name", "killed", "--storage-path", tmp_path) as process:
        for victim in ("RayTrainWorker", "TrainController"):
            wait_for_epochs(run_dir, more=2)
            os.kill(processes(process.pid, named=victim)[-1], signal.SIGKILL)
            time.sleep(2)
        status, out, err = finish(process)
    assert (status, err) == (0, ""), out
    (trial,) = trials_of(run_dir)
    assert trial.state is TrialState.COMPLETE
    assert sorted(trial.intermediate_values) == list(range(1, 61))
    first_logged(run_dir, 0)
    assert summary_of(run_dir)["restarts"]["after_a_lost_worker"] == 2


def wait_for_epochs(run_dir: Path, *, more: int) -> None:
    """Waits until the trials have reported so many epochs more than now."""

    def count() -> int:
        return sum(len(trial.intermediate_values) for trial in trials_of(run_dir))

    before = count()
    wait_until(lambda: count() >= before + more, timeout_s=240)


def test_trials_of_one_and_of_two_workers_in_one_search(tmp_path: Path) -> None:
    order = ["small_cnn", "cnn", "small_cnn"]  # a group waits for an actor to go, and an actor for a group
    space = write_space(
        tmp_path,
        space={
            "arch": {"type": "categorical", "values": ["small_cnn", "cnn"]},
            "lr": {"type": "float", "low": 1e-3, "high": 1e-2},
        },
        scheduler={"max_epochs": 2, "grace_period": 1, "reduction_factor": 2},
        budget={"trials": 3},
        resources={"workers": {"default": 1, "cnn": 2}},
        start_from=[{"arch": arch} for arch in order],
    )
    status, out, err = run(space, "--name", "run", "--storage-path", tmp_path)
    assert (status, err) == (0, ""), out
    trials = trials_of(tmp_path / "run")
    assert [trial.params["arch"] for trial in trials] == order
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}


def test_a_hung_trial_is_ended_and_the_search_goes_on(tmp_path: Path) -> None:
    """A stopped process is a real hang: it answers nobody, not even Ray."""
    run_dir = tmp_path / "hung"
    space = write_space(
        tmp_path,
        scheduler=LONG,
        budget={"trials": 3},
        resources={"hang_timeout": "60s", "max_concurrent_trials": 1},
    )
    with start(space, "--name", "hung", "--storage-path", tmp_path) as process:
        wait_for_epochs(run_dir, more=2)
        (stopped,) = processes(process.pid, named="ImplicitFunc.train")
        os.kill(stopped, signal.SIGSTOP)
        try:
            status, out, err = finish(process)
        finally:
            with suppress(ProcessLookupError):
                os.kill(stopped, signal.SIGKILL)
    assert (status, err) == (0, ""), out
    summary = summary_of(run_dir)
    assert summary["trials"]["completed"] == 2
    assert summary["failures"] == [
        {"trial": 0, "cause": "hung", "message": "no epoch was reported for 60 s; see resources.hang_timeout"}
    ]


def test_a_trial_that_the_memory_monitor_kills_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")  # every worker is one too many
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    space = write_space(tmp_path, budget={"trials": 3}, resources={"retries": 1, "max_concurrent_trials": 1})
    with start(space, "--name", "memory", "--storage-path", tmp_path) as process:
        status, out, err = finish(process)
    assert (status, err) == (1, ""), out
    failures = summary_of(tmp_path / "memory")["failures"]
    assert {failure["cause"] for failure in failures} == {"killed: out of memory"}
    assert all("killed due to the node running low on memory" in failure["message"] for failure in failures)
    assert "the first 3 trials all failed alike: killed: out of memory" in out


# Real nodes on this machine, in a process of their own, with the dashboard, which worker groups need: a node is added,
# killed or given notice for each line it reads.
NODES = """
import subprocess
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": True})
print(cluster.address, flush=True)
nodes = []
for line in sys.stdin:
    if line.strip() == "add":
        nodes.append(cluster.add_node(num_cpus=1))
    elif line.strip() == "give notice":
        notice = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
        notice += ["--deadline-remaining-seconds", "600", "--node-id", nodes[-1].node_id, "--address", cluster.address]
        drain = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", *notice]
        subprocess.run(drain, check=True, stdout=subprocess.DEVNULL)
        print("given", flush=True)
    else:
        cluster.remove_node(nodes.pop(), allow_graceful=False)
cluster.shutdown()
"""


@contextmanager
def cluster_of_nodes() -> Iterator[subprocess.Popen[str]]:
    nodes = subprocess.Popen(
        [sys.executable, "-c", NODES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield nodes
    finally:
        nodes.communicate(timeout=120)


def tell(nodes: subprocess.Popen[str], command: str) -> None:
    assert nodes.stdin is not None
    nodes.stdin.write(command + "\n")
    nodes.stdin.flush()


def test_the_search_follows_a_cluster_that_grows_and_shrinks(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    # Long enough that Ray, which waits for heartbeats for ten seconds, finds out about the lost node before the end.
    space = write_space(tmp_path, scheduler={"name": "none", "max_epochs": 25}, budget={"trials": 8})
    with cluster_of_nodes() as nodes:
        assert nodes.stdout is not None
        address = nodes.stdout.readline().strip()
        with start(space, "--name", "run", "--storage-path", tmp_path, "--address", address) as process:
            wait_until(lambda: any(trial.intermediate_values for trial in trials_of(run_dir)))
            assert in_training(run_dir) == 1
            tell(nodes, "add")
            wait_until(lambda: in_training(run_dir) == 2, timeout_s=240)
            tell(nodes, "kill")
            status, out, err = finish(process)
    assert (status, err) == (0, ""), out
    assert {state for state, *_ in outcomes(run_dir).values()} == {TrialState.COMPLETE}
    assert summary_of(run_dir)["restarts"]["after_a_lost_worker"] == 1
    log = (run_dir / "logs" / "search.log").read_text()
    assert "the cluster holds 2 worker(s), before 1" in log
    assert "the cluster holds 1 worker(s), before 2" in log


def test_a_group_whose_node_goes_before_its_time_was_preempted(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    space = write_space(
        tmp_path, scheduler={"name": "none", "max_epochs": 60}, budget={"trials": 1}, resources={"workers": 2}
    )
    with cluster_of_nodes() as nodes:
        assert nodes.stdout is not None
        address = nodes.stdout.readline().strip()
        tell(nodes, "add")
        with start(space, "--name", "run", "--storage-path", tmp_path, "--address", address) as process:
            wait_until(lambda: any(trial.intermediate_values for trial in trials_of(run_dir)), timeout_s=240)
            tell(nodes, "give notice")
            assert nodes.stdout.readline().strip() == "given"
            time.sleep(2)  # the notice of a spot instance is longer than that
            tell(nodes, "kill")
            tell(nodes, "add")
            status, out, err = finish(process)
    assert (status, err) == (0, ""), out
    assert {state for state, *_ in outcomes(run_dir).values()} == {TrialState.COMPLETE}
    assert summary_of(run_dir)["restarts"] == {"after_a_lost_worker": 0, "after_a_preemption": 1}


def in_training(run_dir: Path) -> int:
    """Trials that have reported an epoch and not ended."""
    return sum(bool(trial.intermediate_values) and not trial.state.is_finished() for trial in trials_of(run_dir))


def test_a_retraining_whose_worker_is_killed_goes_on(tmp_path: Path) -> None:
    run_dir = tmp_path / "final"
    scheduler = {"name": "none", "max_epochs": 40}
    space = write_space(tmp_path, scheduler=scheduler, budget={"trials": 1}, final={"top_k": 1, "seeds": 1})
    with start(space, "--name", "final", "--storage-path", tmp_path) as process:
        wait_until(lambda: any(run_dir.glob("final/*/checkpoint.pt")), timeout_s=240)
        os.kill(processes(process.pid, named="_train_here")[-1], signal.SIGKILL)
        status, out, err = finish(process)
    assert (status, err) == (0, ""), out
    assert "goes on" in (run_dir / "logs" / "search.log").read_text()
    assert summary_of(run_dir)["final"]["failures"] == []


def test_a_retraining_that_hangs_is_ended_and_the_others_decide(tmp_path: Path) -> None:
    run_dir = tmp_path / "final"
    space = write_space(
        tmp_path,
        scheduler={"name": "none", "max_epochs": 40},
        budget={"trials": 1},
        final={"top_k": 1, "seeds": 2},
        resources={"hang_timeout": "45s"},  # longer than a slow machine takes to import torch
    )
    with start(space, "--name", "final", "--storage-path", tmp_path) as process:
        wait_until(lambda: any(run_dir.glob("final/*/checkpoint.pt")), timeout_s=240)
        os.kill(processes(process.pid, named="_train_here")[-1], signal.SIGSTOP)
        status, out, err = finish(process)
    assert (status, err) == (0, ""), out
    failures = summary_of(run_dir)["final"]["failures"]
    assert len(failures) == 1
    assert "hung: no epoch was reported for 45 s; see resources.hang_timeout" in failures[0]
    assert json.loads((run_dir / "test" / "metrics.json").read_text())["retrained"]


def test_an_evaluation_can_be_interrupted_and_done_later(tmp_path: Path) -> None:
    run_dir = tmp_path / "first"
    space = write_space(tmp_path, scheduler={"max_epochs": 2}, budget={"trials": 1})
    with start(space, "--name", "first", "--storage-path", tmp_path) as process:
        wait_until(lambda: bool(processes(process.pid, named="evaluate_winner")), timeout_s=240, every_s=0.02)
        os.kill(processes(process.pid, named="evaluate_winner")[-1], signal.SIGSTOP)  # as where it takes hours
        process.send_signal(signal.SIGINT)
        status, out, err = finish(process)
    assert (status, err) == (130, ""), out
    assert summary_of(run_dir)["state"] == "interrupted"
    status, out, err = run("--resume", run_dir)
    assert (status, err) == (0, ""), out
    assert summary_of(run_dir)["test"] is not None
