"""What every scheduler owes: each fate right in study and ledger, no epoch trained twice, the same after a restart.

Trials are simulated (a curve of one line, checkpoints in a dictionary) and driven through the real searcher, scheduler
and Optuna study; at the end of the file the shipped examples run through Ray Tune with real training.
"""

from __future__ import annotations

import math
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import optuna
import pytest
import torch
from optuna.trial import TrialState
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from search.algorithm_checks import algorithm_problems
from search.algorithm_config import SamplerName, SchedulerName
from search.config import SearchConfig, load_search
from search.halt import Halt
from search.inheritance import inherit
from search.launch import CAUSE, FAILURE, OUT_OF_MEMORY
from search.ledger import Ledger, Lineage, Status, TrialRecord
from search.lint import lint
from search.results import RunPaths
from search.room import Room
from search.scheduler_choice import build_scheduler
from search.searcher import OptunaSearcher
from search.spending import Spending
from search.tuner import open_study
from tests.search.cli import run, start, trials_of, wait_until
from trainables.checkpoint import TrialFiles, load_checkpoint
from trainables.config import DataConfig, TrialConfig
from trainables.errors import CheckpointError
from trainables.runtime import LocalRuntime
from trainables.train import train
from trainables.trial_state import start_trial

SCHEDULERS = get_args(SchedulerName)
SAMPLERS = get_args(SamplerName)
EXAMPLES = sorted((Path(__file__).parents[2] / "spaces").glob("*/*.yaml"))
# These go through Ray here; asha and none do in test_run.py, the pausing ones in the kill test below, and all samplers
# and schedulers go through the simulation.
RUN_EXAMPLES = [path for path in EXAMPLES if path.stem in ("hyperband", "median", "curves", "grid")]
MAX_EPOCHS = 9
TRIALS = 18
SPACE = {"lr": {"type": "float", "low": 0.05, "high": 0.9, "step": 0.05}, "dropout": 0.1}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield


def search(scheduler: str, *, sampler: str = "grid", **budget: int) -> SearchConfig:
    return SearchConfig.model_validate(
        {
            "task": {"data": {"name": "digits"}},
            "space": SPACE if sampler != "cmaes" else {**SPACE, "dropout": {"type": "float", "low": 0.0, "high": 0.5}},
            "sampler": {"name": sampler, "startup_trials": 4, "population_size": 4},
            "scheduler": {
                "name": scheduler,
                "max_epochs": MAX_EPOCHS,
                "reduction_factor": 2,
                "min_trials": 3,
                "population": 6,
                "interval": 2,
            },
            "budget": budget or {"trials": TRIALS},
        }
    )


class Simulation:
    """Workers that train trials of a search, and lose everything but study and checkpoints when they are killed."""

    def __init__(self, root: Path, config: SearchConfig, *, workers: int = 1, seed: int = 0) -> None:
        self.config = config
        self.paths = RunPaths(root)
        self.workers = workers
        self.rng = random.Random(seed)
        self.checkpoints: dict[int, list[float]] = {}
        self.trained: Counter[tuple[int, int]] = Counter()
        self.reported: dict[int, dict[int, float]] = {}

    def session(self, *, events: int | None = None) -> bool:
        """Runs the search to its end, or for so many reports; whether it has ended."""
        self.store = open_study(self.config, self.paths)
        self.ledger = Ledger(metric="val_top1")
        self.halt = Halt()
        self.scheduler = build_scheduler(
            self.config.scheduler, metric="val_top1", space=self.config.search_space, seed=0
        )
        self.searcher = OptunaSearcher(
            self.store,
            self.config.search_space,
            self.ledger,
            scheduler=self.scheduler,
            halt=self.halt,
            spending=Spending(self.config.budget, self.config.resources),
            on_finish=lambda record: self.checkpoints.pop(record.number, None) and None,
            inherit=self.inherit,
            max_trials=self.config.budget.trials,
            room=Room(lambda: self.workers),
            seed=0,
        )
        self.at_work: dict[str, dict[str, Any]] = {}
        count = 0
        while self.fill():
            if count == events:
                return False
            self.one_report(self.rng.choice(list(self.at_work)[: self.workers]))
            count += 1
        self.searcher.end_running_trials()
        return True

    def fill(self) -> bool:
        """Proposes trials while there is room; whether there is any at work."""
        while not self.halt.requested:
            trial_id = f"{self.rng.random()}"
            proposed = self.searcher.suggest(trial_id)
            if not isinstance(proposed, dict):
                assert proposed == Searcher.FINISHED or self.at_work, "it waits for nobody"
                break
            self.at_work[trial_id] = {**proposed, "epoch": 0}
        return bool(self.at_work) and not self.halt.requested

    def inherit(self, record: TrialRecord) -> None:
        if record.lineage is not None and record.number not in self.checkpoints:
            parent = self.checkpoints[record.lineage.parent]
            assert len(parent) == record.lineage.epoch, "the parent has trained on"
            self.checkpoints[record.number] = list(parent)

    def one_report(self, trial_id: str) -> None:
        """A worker trains an epoch, or repeats the report of one that its checkpoint has."""
        work = self.at_work[trial_id]
        number, work["epoch"] = work["number"], work["epoch"] + 1
        result = self.result(number, work["params"]["lr"], epoch=work["epoch"])
        if FAILURE not in result and math.isfinite(result["val_top1"]):
            before = self.reported.setdefault(number, {}).setdefault(work["epoch"], result["val_top1"])
            assert before == result["val_top1"], "an epoch was reported with two values"
        done = work["epoch"] == MAX_EPOCHS
        trial = SimpleNamespace(config={"number": number})
        if done or self.scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP:
            del self.at_work[trial_id]
            self.searcher.on_trial_complete(trial_id, result=result)
        else:
            self.searcher.on_trial_result(trial_id, result)

    def result(self, number: int, lr: float, *, epoch: int) -> dict[str, Any]:
        curve = self.checkpoints.setdefault(number, [])
        if len(curve) < epoch:
            if (lr, epoch) == (0.5, 1):
                return {FAILURE: "no such file", CAUSE: "DataError"}
            if (lr, epoch) == (0.75, 3):
                return {FAILURE: "too large", CAUSE: OUT_OF_MEMORY}
            self.trained[number, epoch] += 1
            last = curve[-1] if curve else 0.0
            goal = round(1 - abs(lr - 0.4), 1)  # of two neighbours both have the same: there are ties
            curve.append(math.nan if (lr, epoch) == (0.2, 2) else last + 0.3 * (goal - last))
        value = curve[epoch - 1]
        return {
            "epoch": epoch,
            "val_top1": value,
            "val_loss": 1 - value,
            "score": max(curve[:epoch]),
            "best_epoch": curve.index(max(curve[:epoch])) + 1,
            "train_s": 1.0,
            "val_s": 0.0,
            "images_per_s": 1.0,
        }

    def fates(self) -> dict[int, Any]:
        """All that is on record of the trials that were run."""
        return {
            trial.number: (trial.state, trial.params, trial.intermediate_values, trial.value, trial.user_attrs)
            for trial in self.store.trials()
            if "not_run" not in trial.user_attrs
        }


def check(simulation: Simulation, *, trials: int = TRIALS) -> None:
    """The contract."""
    records = simulation.store.records()
    frozen = {trial.number: trial for trial in simulation.store.trials()}
    assert simulation.ledger.records() == records, "ledger and study tell different stories"
    assert sum(record.lineage is None for record in records) == trials
    assert len({tuple(record.params.items()) for record in records if record.lineage is None}) == trials
    for record in records:
        trial = frozen[record.number]
        reported = simulation.reported.get(record.number, {})
        assert record.curve == trial.intermediate_values == reported
        assert list(record.curve) == list(range(1, record.epochs + 1)), "an epoch of a curve is missing"
        if record.status is Status.FAILED:
            oom = record.cause == OUT_OF_MEMORY
            assert trial.state is (TrialState.PRUNED if oom else TrialState.FAIL)
            assert trial.constraints == ({"memory": 1.0} if oom else {})
            assert record.cause in ("DataError", "DivergedError", OUT_OF_MEMORY)
            continue
        done = record.epochs == MAX_EPOCHS
        assert record.status is (Status.COMPLETED if done else Status.STOPPED)
        assert trial.state is (TrialState.COMPLETE if done else TrialState.PRUNED)
        assert trial.value == record.score == max(record.curve.values())
    assert set(simulation.trained.values()) == {1}, "an epoch was trained twice"
    assert sum(record.trained_epochs for record in records) <= simulation.trained.total()
    assert any(record.status is Status.COMPLETED for record in records)
    assert not simulation.scheduler.paused


@pytest.mark.parametrize("sampler", ["grid", "tpe"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_fate_is_on_record(tmp_path: Path, scheduler: str, sampler: str) -> None:
    simulation = Simulation(tmp_path, search(scheduler, sampler=sampler), workers=3)
    assert simulation.session()
    check(simulation)
    stopped = [record for record in simulation.store.records() if record.status is Status.STOPPED]
    assert bool(stopped) == (scheduler != "none")


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name not in ("grid", "tpe", "gp")])
def test_every_sampler_lives_with_stopped_and_failed_trials(tmp_path: Path, sampler: str) -> None:
    simulation = Simulation(tmp_path, search("asha", sampler=sampler), workers=2)
    assert simulation.session()
    check(simulation)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_search_that_is_killed_again_and_again_decides_the_same(tmp_path: Path, scheduler: str) -> None:
    whole = Simulation(tmp_path / "whole", search(scheduler))
    assert whole.session()
    check(whole)
    for events in (1, 4):
        killed = Simulation(tmp_path / f"killed-{events}", search(scheduler))
        sessions = 1
        # A resumed trial first repeats the epochs that it has, so a session must be longer than those.
        while not killed.session(events=MAX_EPOCHS + events):
            sessions += 1
        assert sessions > 3
        check(killed)
        assert killed.fates() == whole.fates()


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_kills_among_several_workers_lose_nothing(tmp_path: Path, scheduler: str) -> None:
    moments = random.Random(scheduler)
    simulation = Simulation(tmp_path, search(scheduler, sampler="random"), workers=4, seed=1)
    while not simulation.session(events=moments.randint(30, 70)):
        pass
    check(simulation)


@pytest.mark.parametrize("scheduler", ["asha_promotion", "pbt"])
def test_a_budget_of_epochs_counts_each_once_and_closes_what_was_paused(tmp_path: Path, scheduler: str) -> None:
    simulation = Simulation(tmp_path, search(scheduler, epochs=40), workers=2)
    simulation.session()
    assert simulation.halt.reason == "the budget of 40 epochs is used up"
    records = simulation.store.records()
    assert sum(record.trained_epochs for record in records) == 40
    assert sum(record.train_s for record in records if record.lineage) <= 40  # inherited epochs took no time
    assert not [trial for trial in simulation.store.trials() if trial.state is TrialState.RUNNING]
    assert {Status.STOPPED, Status.OUT_OF_BUDGET} <= {record.status for record in records}


def test_heirs_have_parameters_near_their_parents_and_go_on_from_their_epoch(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, search("pbt"), workers=2)
    simulation.session()
    records = {record.number: record for record in simulation.store.records()}
    heirs = [record for record in records.values() if record.lineage is not None]
    assert heirs
    for heir in heirs:
        assert heir.lineage is not None
        parent, loser = records[heir.lineage.parent], records[heir.lineage.replaces]
        born = heir.lineage.epoch
        assert {epoch: heir.curve[epoch] for epoch in range(1, born + 1)} == {
            epoch: parent.curve[epoch] for epoch in range(1, born + 1)
        }
        assert loser.status is Status.STOPPED
        assert loser.epochs == born
        assert loser.curve[born] < parent.curve[born]
        assert not [epoch for number, epoch in simulation.trained if number == heir.number and epoch <= born]
        assert heir.params != parent.params
        assert simulation.config.search_space.contains(heir.params) is None


def test_a_driver_killed_while_it_replaces_a_member_finds_what_is_left_to_do(tmp_path: Path) -> None:
    whole = Simulation(tmp_path / "whole", search("pbt"))
    whole.session()
    killed = Simulation(tmp_path / "killed", search("pbt"))

    def die(record: TrialRecord) -> None:
        raise KeyboardInterrupt(f"killed before trial {record.number} had its weights")

    inherit = killed.inherit
    killed.inherit = die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        killed.session()
    killed.inherit = inherit  # type: ignore[method-assign]
    assert killed.session()
    check(killed)
    assert killed.fates() == whole.fates()


# --- through Ray Tune, with real training ---


def epochs_trained(trial_dir: Path) -> list[int]:
    """The epochs that a trial's TensorBoard files say it trained, in the order of time.

    The names of files that two processes began in one second sort by process number, so they say nothing of order.
    """
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    events = [event for path in trial_dir.glob("events.*") for event in EventFileLoader(str(path)).Load()]
    return [
        event.step
        for event in sorted(events, key=lambda event: event.wall_time)
        if any(value.tag == "loss/train" for value in event.summary.value)
    ]


def check_run(run_dir: Path, *, max_epochs: int) -> None:
    for trial in trials_of(run_dir):
        if "not_run" in trial.user_attrs:
            continue
        lineage = trial.user_attrs.get("lineage")
        born = lineage["epoch"] if lineage else 0
        last = max(trial.intermediate_values)
        assert sorted(trial.intermediate_values) == list(range(1, last + 1))
        assert trial.state is (TrialState.COMPLETE if last == max_epochs else TrialState.PRUNED)
        trained = epochs_trained(run_dir / "trials" / f"{trial.number:04d}")
        # An epoch beyond the last report may be trained while the scheduler's word is on its way.
        assert trained[: last - born] == list(range(born + 1, last + 1))
        assert len(set(trained)) == len(trained)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("path", RUN_EXAMPLES, ids=lambda path: path.stem)
def test_the_shipped_examples_run(path: Path, tmp_path: Path) -> None:
    config = load_search(path)
    status, out, err = run(path, "--name", "x", "--storage-path", tmp_path)
    assert (status, err) == (0, ""), out
    trials = [trial for trial in trials_of(tmp_path / "x") if "not_run" not in trial.user_attrs]
    states = Counter(trial.state for trial in trials)
    assert states[TrialState.COMPLETE] > 0
    assert set(states) <= {TrialState.COMPLETE, TrialState.PRUNED}
    heirs = [trial for trial in trials if "lineage" in trial.user_attrs]
    assert len(trials) - len(heirs) == (config.budget.trials or config.search_space.num_combinations)
    assert bool(heirs) == (config.scheduler.name == "pbt")
    check_run(tmp_path / "x", max_epochs=config.scheduler.max_epochs)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("name", ["asha_promotion", "pbt"])
def test_paused_trials_survive_a_kill_of_the_driver(tmp_path: Path, name: str) -> None:
    path = next(each for each in EXAMPLES if each.stem == name)
    run_dir = tmp_path / "x"
    command: list[str | Path] = [path, "--name", "x", "--storage-path", tmp_path]
    for epochs in (10, 25):
        with start(*command) as process:
            wait_until(lambda: sum(len(each.intermediate_values) for each in trials_of(run_dir)) >= epochs)  # noqa: B023
            process.send_signal(signal.SIGKILL)
        time.sleep(3)  # Ray's processes follow the driver into death
        assert any(trial.state is TrialState.RUNNING for trial in trials_of(run_dir))
        command = ["--resume", run_dir]
    status, out, err = run(*command)
    assert (status, err) == (0, ""), out
    trials = [trial for trial in trials_of(run_dir) if "not_run" not in trial.user_attrs]
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    config = load_search(path)
    assert sum("lineage" not in trial.user_attrs for trial in trials) == config.budget.trials
    check_run(run_dir, max_epochs=config.scheduler.max_epochs)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_shipped_examples_load(path: Path) -> None:
    config = load_search(path)
    used = config.sampler.name if path.parent.name == "samplers" else config.scheduler.name
    assert used == config.name == path.stem
    assert lint(config) == []
    space = config.search_space
    assert algorithm_problems(space, sampler=config.sampler.name, scheduler=config.scheduler.name) == []
    assert path.read_text(encoding="utf-8").startswith(
        f"# python -m search.run spaces/{path.parent.name}/{path.name}\n"
    )


def test_there_is_an_example_of_every_sampler_and_scheduler() -> None:
    assert {path.stem for path in EXAMPLES if path.parent.name == "samplers"} == set(SAMPLERS)
    assert {path.stem for path in EXAMPLES if path.parent.name == "schedulers"} == set(SCHEDULERS)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_heir_trains_on_from_its_parents_weights_under_its_own_parameters(tmp_path: Path, optimizer: str) -> None:
    paths = RunPaths(tmp_path)
    changes = {"lr": 0.02, "weight_decay": 0.2, "dropout": 0.3, **({"momentum": 0.5} if optimizer == "sgd" else {})}
    config = TrialConfig(
        data=DataConfig(name="digits"), optimizer=optimizer, lr=1e-3, weight_decay=0.1, batch_size=512, max_epochs=3
    )
    parent, heir = paths.trial(0), paths.trial(1)
    with pytest.raises(InterruptedError):
        train(config, _Interrupted(parent, epochs=2))
    of_parent = load_checkpoint(TrialFiles(parent).checkpoint, device=torch.device("cpu"))
    assert of_parent is not None

    record = TrialRecord(number=1, params=changes, lineage=Lineage(parent=0, replaces=2, epoch=2))
    own = config.model_copy(update=changes)
    inherit(record, paths, config=own)
    trial = start_trial(own, LocalRuntime(trial_dir=heir, num_threads=1))
    assert len(trial.history) == 2
    weights = trial.model.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in of_parent["model"].items())
    decays = {group["weight_decay"] for group in trial.stepper.optimizer.param_groups}
    assert decays == {0.0, 0.2}
    if optimizer == "sgd":
        assert {group["momentum"] for group in trial.stepper.optimizer.param_groups} == {0.5}

    runtime = LocalRuntime(trial_dir=heir, num_threads=1)
    last = train(own, runtime)
    assert [report["epoch"] for report in runtime.reported] == [1, 2, 3]
    assert [report["val_loss"] for report in runtime.reported[:2]] == [
        each["val_loss"] for each in of_parent["history"]
    ]
    assert math.isfinite(last["val_loss"])
    assert TrialFiles(heir).best_weights.exists()
    before = TrialFiles(heir).checkpoint.read_bytes()
    inherit(record, paths, config=own)  # after a restart: what it has trained stays
    assert TrialFiles(heir).checkpoint.read_bytes() == before

    of_parent_file = TrialFiles(parent).checkpoint
    of_parent_file.write_bytes(of_parent_file.read_bytes()[:-100])
    late = TrialRecord(number=4, params=changes, lineage=Lineage(parent=0, replaces=2, epoch=2))
    inherit(late, paths, config=own)
    from_one_before = load_checkpoint(TrialFiles(paths.trial(4)).checkpoint, device=torch.device("cpu"))
    assert from_one_before is not None
    assert from_one_before["epoch"] == 1

    stray = TrialRecord(number=3, params={}, lineage=Lineage(parent=0, replaces=2, epoch=5))
    with pytest.raises(CheckpointError, match=r"goes on from epoch 5 of trial 0, found epoch 1; start a new run"):
        inherit(stray, paths, config=own)


class _Interrupted(LocalRuntime):
    """A runtime that ends the trial once some epochs are reported, as a scheduler does."""

    def __init__(self, trial_dir: Path, *, epochs: int) -> None:
        super().__init__(trial_dir=trial_dir, num_threads=1)
        self._epochs = epochs

    def report(self, metrics: Any, *, last: bool) -> None:
        super().report(metrics, last=last)
        if len(self.reported) == self._epochs:
            raise InterruptedError
