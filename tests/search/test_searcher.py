"""What the study knows after each way in which a trial can end; Ray Tune's calls are made by hand, Optuna is real."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from search.config import SearchConfig
from search.launch import CAUSE, FAILURE
from search.ledger import Ledger, Status
from search.results import RunPaths
from search.schedulers import FullScheduler
from search.searcher import Halt, OptunaSearcher
from search.spending import Spending
from search.study import StudyStore
from search.tuner import open_study

FINITE = {
    "optimizer": {"type": "categorical", "values": ["sgd", "adamw"]},
    "batch_size": {"type": "int", "low": 16, "high": 48, "step": 16},
}
CONTINUOUS = {"lr": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True}, **FINITE}


class Bench:
    """A searcher over a study on disk, as `run_trials` wires it."""

    def __init__(
        self, root: Path, space: dict[str, Any], *, max_concurrent: int = 2, ahead: int = 0, **changes: Any
    ) -> None:
        sections: dict[str, Any] = {
            "task": {"data": {"name": "digits"}},
            "space": space,
            "scheduler": {"name": "none", "max_epochs": 3},
            "budget": {"trials": 6},
        }
        self.config = SearchConfig.model_validate({**sections, **changes})
        self.store: StudyStore = open_study(self.config, RunPaths(root))
        self.ledger = Ledger(metric="val_top1")
        self.scheduler = FullScheduler(metric="val_top1")
        self.halt = Halt()
        self.searcher = OptunaSearcher(
            self.store,
            self.config.search_space,
            self.ledger,
            scheduler=self.scheduler,
            halt=self.halt,
            spending=Spending(self.config.budget, self.config.resources),
            on_finish=lambda _: None,
            max_trials=self.config.budget.trials,
            max_concurrent=max_concurrent,
            ahead=ahead,
            seed=self.config.sampler.seed,
        )

    def suggest(self, trial_id: str) -> Any:
        return self.searcher.suggest(trial_id)

    def run(self, trial_id: str, values: list[float]) -> int:
        """A trial from proposal to end."""
        number = int(self.suggest(trial_id)["number"])
        for result in results(values):
            self.searcher.on_trial_result(trial_id, result)
        self.searcher.on_trial_complete(trial_id, result=results(values)[-1])
        return number

    def frozen(self, number: int) -> optuna.trial.FrozenTrial:
        return self.store.trials()[number]


def results(values: list[float]) -> list[dict[str, Any]]:
    """Epoch results as `train` reports them."""
    rows = []
    for epoch, value in enumerate(values, start=1):
        best = max(range(epoch), key=lambda index: values[index])
        rows.append(
            {
                "epoch": epoch,
                "val_top1": value,
                "val_loss": 1 - value,
                "score": values[best],
                "best_epoch": best + 1,
                "train_s": 1.0,
                "val_s": 0.5,
                "images_per_s": 100.0,
            }
        )
    return rows


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield


def test_a_finished_trial_is_complete_with_its_best_value(tmp_path: Path) -> None:
    bench = Bench(tmp_path, CONTINUOUS)
    trial = bench.frozen(bench.run("a", [0.5, 0.8, 0.7]))
    assert trial.state is TrialState.COMPLETE
    assert trial.value == 0.8
    assert trial.intermediate_values == {1: 0.5, 2: 0.8, 3: 0.7}
    record = bench.store.records()[0]
    assert (record.status, record.best_epoch, record.train_s) == (Status.COMPLETED, 2, 4.5)


def test_a_stopped_trial_is_pruned_with_its_curve(tmp_path: Path) -> None:
    bench = Bench(tmp_path, CONTINUOUS)
    number = int(bench.suggest("a")["number"])
    first, second = results([0.5, 0.4])
    bench.searcher.on_trial_result("a", first)
    bench.scheduler.stopped.add(number)
    bench.searcher.on_trial_complete("a", result=second)  # the epoch at which it is stopped comes only here
    trial = bench.frozen(number)
    assert trial.state is TrialState.PRUNED
    assert trial.intermediate_values == {1: 0.5, 2: 0.4}
    assert bench.store.records()[0].status is Status.STOPPED


def test_a_failure_is_fail_with_its_cause(tmp_path: Path) -> None:
    bench = Bench(tmp_path, CONTINUOUS)
    number = int(bench.suggest("a")["number"])
    bench.searcher.on_trial_complete("a", result={FAILURE: "train_loss became nan", CAUSE: "DivergedError"})
    assert bench.frozen(number).state is TrialState.FAIL
    record = bench.store.records()[0]
    assert (record.cause, record.message) == ("DivergedError", "train_loss became nan")


def test_a_dead_worker_is_fail_and_quotes_ray(tmp_path: Path) -> None:
    bench = Bench(tmp_path, CONTINUOUS)
    number = int(bench.suggest("a")["number"])
    bench.scheduler.errors[number] = "Failure # 1\nThe actor died because of SIGKILL.\n"
    bench.searcher.on_trial_complete("a", error=True)
    assert bench.frozen(number).state is TrialState.FAIL
    assert bench.store.records()[0].message == "The actor died because of SIGKILL."


def test_no_more_trials_than_the_budget_nor_at_a_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path, CONTINUOUS, budget={"trials": 3})
    assert isinstance(bench.suggest("a"), dict)
    assert isinstance(bench.suggest("b"), dict)
    assert bench.suggest("c") is None
    for trial_id in "ab":
        bench.searcher.on_trial_complete(trial_id, result=results([0.5])[0])
    bench.run("c", [0.6])
    assert bench.suggest("d") == Searcher.FINISHED


def test_epoch_budget_ends_the_search_and_closes_what_ran(tmp_path: Path) -> None:
    bench = Bench(tmp_path, CONTINUOUS, budget={"epochs": 3})
    bench.suggest("a")
    for result in results([0.1, 0.2, 0.3]):
        bench.searcher.on_trial_result("a", result)
    assert bench.halt.reason == "the budget of 3 epochs is used up"
    assert bench.suggest("b") == Searcher.FINISHED
    bench.searcher.end_running_trials()
    assert bench.frozen(0).state is TrialState.PRUNED
    assert bench.store.records()[0].status is Status.OUT_OF_BUDGET


def test_a_trial_proposed_ahead_waits_and_is_taken_back_at_the_end(tmp_path: Path) -> None:
    bench = Bench(tmp_path, CONTINUOUS, max_concurrent=1, ahead=1)
    bench.suggest("a")
    bench.suggest("b")
    assert bench.suggest("c") is None
    assert [record.status for record in bench.ledger.records()] == [Status.RUNNING, Status.WAITING]
    bench.searcher.on_trial_complete("a", result=results([0.5])[0])
    bench.suggest("c")
    assert [record.status for record in bench.ledger.records()[1:]] == [Status.RUNNING, Status.WAITING]
    bench.searcher.end_running_trials()
    statuses = [record.status for record in bench.store.records()]
    assert statuses == [Status.COMPLETED, Status.OUT_OF_BUDGET]  # the third was never run, and is not counted


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_finite_space_is_covered_once_and_then_done(tmp_path: Path, sampler: str) -> None:
    bench = Bench(tmp_path, FINITE, sampler={"name": sampler, "seed": 3, "startup_trials": 2}, budget={"trials": 100})
    seen = []
    while (proposed := bench.suggest("a")) != Searcher.FINISHED:
        seen.append(tuple(proposed["params"].items()))
        bench.searcher.on_trial_complete("a", result=results([0.5])[0])
    assert len(seen) == len(set(seen)) == 6
    assert len(bench.store.records()) == 6  # duplicates that the sampler proposed are not among them


def test_recipes_come_first(tmp_path: Path) -> None:
    recipe = {"lr": 0.003, "optimizer": "sgd", "batch_size": 32}
    bench = Bench(tmp_path, CONTINUOUS, start_from=[recipe])
    assert bench.suggest("a")["params"] == recipe


def test_three_first_failures_alike_end_the_search(tmp_path: Path) -> None:
    bench = Bench(tmp_path, CONTINUOUS)
    for trial_id in "abc":
        bench.suggest(trial_id)
        bench.searcher.on_trial_complete(trial_id, result={FAILURE: "no such file", CAUSE: "DataError"})
    assert bench.halt.hopeless
    assert bench.halt.reason == "the first 3 trials all failed alike: DataError: no such file"


@pytest.mark.parametrize("causes", [["a", "b", "a"], ["a", None, "a"]])
def test_failures_that_differ_or_a_success_do_not(tmp_path: Path, causes: list[str | None]) -> None:
    bench = Bench(tmp_path, CONTINUOUS)
    for cause in causes:
        bench.suggest("x")
        failed = {FAILURE: "message", CAUSE: cause}
        bench.searcher.on_trial_complete("x", result=failed if cause else results([0.5])[0])
    assert not bench.halt.requested


def test_resume_keeps_what_is_done_and_takes_up_what_ran(tmp_path: Path) -> None:
    before = Bench(tmp_path, CONTINUOUS)
    done = before.run("a", [0.5, 0.6, 0.7])
    interrupted = before.suggest("b")
    before.searcher.on_trial_result("b", results([0.3])[0])

    after = Bench(tmp_path, CONTINUOUS)  # the driver was killed; all it has is the study
    assert after.ledger.get(done).status is Status.COMPLETED
    assert after.suggest("c") == interrupted  # same number, same parameters, first in line
    for result in results([0.3, 0.4, 0.5]):  # the epoch it had is reported again, and counted once
        after.searcher.on_trial_result("c", result)
    after.searcher.on_trial_complete("c", result=results([0.3, 0.4, 0.5])[-1])
    assert after.frozen(interrupted["number"]).intermediate_values == {1: 0.3, 2: 0.4, 3: 0.5}
    remaining = 0
    while after.suggest("d") != Searcher.FINISHED:
        remaining += 1
        after.searcher.on_trial_complete("d", result=results([0.1])[0])
    assert remaining == 4  # of 6
    params = [tuple(record.params.items()) for record in after.store.records()]
    assert len(set(params)) == 6


def test_a_recipe_half_proposed_when_the_driver_died_is_proposed_again(tmp_path: Path) -> None:
    recipe = {"lr": 0.003, "optimizer": "sgd", "batch_size": 32}
    before = Bench(tmp_path, CONTINUOUS, start_from=[recipe])
    before.store.study.ask().suggest_float("lr", 1e-4, 1e-1, log=True)  # and no further

    after = Bench(tmp_path, CONTINUOUS, start_from=[recipe])
    assert after.suggest("a")["params"] == recipe
    assert [record.number for record in after.store.records()] == [1]


def test_the_same_seed_proposes_the_same_search(tmp_path: Path) -> None:
    searches = []
    for name in ("one", "two"):
        bench = Bench(tmp_path / name, CONTINUOUS, sampler={"seed": 7, "startup_trials": 2}, max_concurrent=1)
        for index in range(6):
            bench.run("a", [0.1 * index])
        searches.append([record.params for record in bench.store.records()])
    assert searches[0] == searches[1]


def test_a_resumed_sampler_does_not_repeat_itself(tmp_path: Path) -> None:
    first = Bench(tmp_path, CONTINUOUS, sampler={"name": "random", "seed": 7})
    before = [first.run("a", [0.5]) for _ in range(3)]
    second = Bench(tmp_path, CONTINUOUS, sampler={"name": "random", "seed": 7})
    second.run("a", [0.5])
    rates = [record.params["lr"] for record in second.store.records()]
    assert len(before) == 3
    assert len(set(rates)) == 4


def test_nothing_infinite_becomes_a_score(tmp_path: Path) -> None:
    bench = Bench(tmp_path, CONTINUOUS)
    bench.suggest("a")
    bad = {**results([0.5])[0], "val_top1": math.nan, "score": math.nan}
    bench.searcher.on_trial_complete("a", result=bad)
    assert bench.store.records()[0].status is Status.FAILED
