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

from search.asha import AshaScheduler
from search.config import SearchConfig
from search.halt import Halt
from search.launch import CAUSE, FAILURE
from search.ledger import Ledger, Status
from search.restarts import Interruption, Kind
from search.results import RunPaths
from search.room import Room
from search.schedulers import FullScheduler
from search.searcher import OptunaSearcher
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
        self,
        root: Path,
        space: dict[str, Any],
        *,
        slots: int = 2,
        ahead: bool = False,
        trial_scheduler: FullScheduler | None = None,
        **changes: Any,
    ) -> None:
        sections: dict[str, Any] = {
            "task": {"data": {"name": "digits"}},
            "space": space,
            "scheduler": {"name": "none", "max_epochs": 3},
            "budget": {"trials": 6},
        }
        self.slots = slots
        self.config = SearchConfig.model_validate({**sections, **changes})
        self.store: StudyStore = open_study(self.config, RunPaths(root))
        self.ledger = Ledger(metric="val_top1")
        self.scheduler = trial_scheduler or FullScheduler(metric="val_top1")
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
            room=Room(lambda: self.slots, sizes=self.config.trial_sizes, ahead=ahead),
            workers_of=self.config.workers_of,
            retries=self.config.resources.retries,
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


def test_a_study_opened_again_tells_of_a_trial_what_the_search_knew_of_it_digit_for_digit(tmp_path: Path) -> None:
    bench = Bench(tmp_path, CONTINUOUS)
    bench.suggest("a")
    result = {**results([0.1 + 0.2])[0], "train_s": 0.27645, "val_s": 0.2000001, "read_s": 0.1, "images_per_s": 1e3 / 7}
    bench.searcher.on_trial_result("a", result)
    bench.searcher.on_trial_complete("a", result=result)
    assert open_study(bench.config, RunPaths(tmp_path)).records() == bench.ledger.records()


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


def test_a_worker_that_died_of_an_error_is_fail_and_quotes_ray(tmp_path: Path) -> None:
    bench = Bench(tmp_path, CONTINUOUS)
    number = int(bench.suggest("a")["number"])
    bench.scheduler.errors[number] = Interruption(Kind.BROKEN, "device-side assert triggered")
    bench.searcher.on_trial_complete("a", error=True)
    assert bench.frozen(number).state is TrialState.FAIL
    record = bench.store.records()[0]
    assert (record.cause, record.message) == ("worker died", "device-side assert triggered")


def lose(bench: Bench, trial_id: str, number: int, kind: Kind = Kind.LOST) -> None:
    bench.scheduler.errors[number] = Interruption(kind, "killed by signal 9")
    bench.searcher.on_trial_complete(trial_id, error=True)


def test_a_lost_worker_is_no_failure_and_its_trial_goes_on_first(tmp_path: Path) -> None:
    bench = Bench(tmp_path, CONTINUOUS)
    begun = bench.suggest("a")
    bench.searcher.on_trial_result("a", results([0.3])[0])
    lose(bench, "a", begun["number"])
    assert bench.suggest("b") == begun
    for result in results([0.3, 0.4, 0.5]):
        bench.searcher.on_trial_result("b", result)
    bench.searcher.on_trial_complete("b", result=results([0.3, 0.4, 0.5])[-1])
    record = bench.store.records()[0]
    assert (record.status, record.restarts.lost, record.train_s) == (Status.COMPLETED, 1, 4.5)
    assert record.curve == {1: 0.3, 2: 0.4, 3: 0.5}


def test_losses_without_an_epoch_between_them_are_a_failure_in_the_end(tmp_path: Path) -> None:
    bench = Bench(tmp_path, CONTINUOUS, resources={"retries": 2})
    number = int(bench.suggest("0")["number"])
    for attempt in range(3):
        assert bench.frozen(number).state is TrialState.RUNNING
        lose(bench, str(attempt), number)
        if attempt < 2:
            assert bench.suggest(str(attempt + 1))["number"] == number
    record = bench.store.records()[0]
    assert (record.status, record.cause, record.message) == (Status.FAILED, "worker lost", "killed by signal 9")
    assert record.restarts.lost == 2  # it was not restarted after the last


def test_an_epoch_between_losses_makes_them_count_anew(tmp_path: Path) -> None:
    bench = Bench(tmp_path, CONTINUOUS, resources={"retries": 1})
    number = int(bench.suggest("0")["number"])
    for epoch in range(3):
        bench.searcher.on_trial_result(str(epoch), results([0.3, 0.4, 0.5])[epoch])
        lose(bench, str(epoch), number)
        assert bench.suggest(str(epoch + 1))["number"] == number
    assert bench.store.records()[0].restarts.lost == 3


def test_preemptions_are_counted_apart_and_without_limit(tmp_path: Path) -> None:
    bench = Bench(tmp_path, CONTINUOUS, resources={"retries": 0})
    number = int(bench.suggest("0")["number"])
    for attempt in range(5):
        lose(bench, str(attempt), number, Kind.PREEMPTED)
        assert bench.suggest(str(attempt + 1))["number"] == number
    restarts = bench.store.records()[0].restarts
    assert (restarts.lost, restarts.preempted) == (0, 5)


def test_a_hung_trial_is_a_failure_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, CONTINUOUS)
    lose(bench, "a", int(bench.suggest("a")["number"]), Kind.HUNG)
    assert bench.store.records()[0].cause == "hung"


def test_restarts_are_remembered_over_a_resume(tmp_path: Path) -> None:
    before = Bench(tmp_path, CONTINUOUS, resources={"retries": 1})
    number = int(before.suggest("a")["number"])
    lose(before, "a", number)
    after = Bench(tmp_path, CONTINUOUS, resources={"retries": 1})
    assert after.suggest("b")["number"] == number
    lose(after, "b", number)
    assert after.frozen(number).state is TrialState.FAIL


def test_the_last_trial_may_still_lose_its_worker(tmp_path: Path) -> None:
    bench = Bench(tmp_path, CONTINUOUS, budget={"trials": 1})
    number = int(bench.suggest("a")["number"])
    assert bench.suggest("b") is None  # Tune never asks again after FINISHED
    lose(bench, "a", number)
    assert bench.suggest("c")["number"] == number


def test_trials_of_different_sizes_share_the_slots(tmp_path: Path) -> None:
    space = {**CONTINUOUS, "arch": {"type": "categorical", "values": ["small_cnn", "resnet18"]}}
    recipes = [{"arch": arch} for arch in ("small_cnn", "small_cnn", "resnet18", "small_cnn")]
    workers = {"default": 1, "resnet18": 3}
    bench = Bench(tmp_path, space, slots=4, ahead=True, start_from=recipes, resources={"workers": workers})
    first, second = bench.suggest("a"), bench.suggest("b")
    assert bench.suggest("c") is None  # 1 + 1 + 3 workers are more than 4
    assert bench.suggest("c") is None
    assert bench.ledger.get(2).status is Status.WAITING
    bench.searcher.on_trial_complete("a", result=results([0.5])[0])
    third = bench.suggest("c")  # its turn comes before that of a smaller one
    assert [each["params"]["arch"] for each in (first, second, third)] == ["small_cnn", "small_cnn", "resnet18"]
    assert bench.suggest("d") is None
    bench.slots = 5  # the cluster has grown
    assert bench.suggest("d")["params"]["arch"] == "small_cnn"
    bench.slots = 1
    bench.searcher.on_trial_complete("b", result=results([0.5])[0])
    assert bench.suggest("e") is None


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
    bench = Bench(tmp_path, CONTINUOUS, ahead=True)
    for trial_id in "abc":
        bench.suggest(trial_id)
    assert bench.suggest("d") is None
    running, waiting = Status.RUNNING, Status.WAITING
    assert [record.status for record in bench.ledger.records()] == [running, running, waiting]
    bench.searcher.on_trial_complete("a", result=results([0.5])[0])
    bench.suggest("d")
    assert [record.status for record in bench.ledger.records()[1:]] == [running, running, waiting]
    bench.searcher.end_running_trials()
    statuses = [record.status for record in bench.store.records()]
    # The fourth was never run, and is not counted.
    assert statuses == [Status.COMPLETED, Status.OUT_OF_BUDGET, Status.OUT_OF_BUDGET]


def test_one_trial_at_a_time_is_never_proposed_ahead(tmp_path: Path) -> None:
    bench = Bench(tmp_path, CONTINUOUS, slots=1, ahead=True)
    assert isinstance(bench.suggest("a"), dict)
    assert bench.suggest("b") is None


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


def test_a_search_that_gave_up_goes_on_when_resumed(tmp_path: Path) -> None:
    before = Bench(tmp_path, CONTINUOUS)
    for _ in range(3):
        before.suggest("a")
        before.searcher.on_trial_complete("a", result={FAILURE: "no such file", CAUSE: "DataError"})
    after = Bench(tmp_path, CONTINUOUS)
    after.run("a", [0.5])
    assert not after.halt.requested
    after.suggest("a")
    after.searcher.on_trial_complete("a", result={FAILURE: "no such file", CAUSE: "DataError"})
    assert not after.halt.requested


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


def test_a_resume_knows_in_which_order_trials_came_to_a_rung(tmp_path: Path) -> None:
    before = Bench(tmp_path, CONTINUOUS, slots=3)
    numbers = [before.suggest(name)["number"] for name in "abc"]
    for name in "cab":
        before.searcher.on_trial_result(name, results([0.5])[0])
    for name in "ba":
        before.searcher.on_trial_result(name, results([0.5, 0.6])[1])

    asha = AshaScheduler(metric="val_top1", grace_period=1, reduction_factor=2, max_epochs=4)
    after = Bench(tmp_path, CONTINUOUS, slots=3, trial_scheduler=asha)
    came = [[numbers["abc".index(name)] for name in names] for names in ("cab", "ba")]
    assert [list(rung.points) for rung in asha.bracket.rungs.values()] == came
    again = [after.suggest(name)["number"] for name in "xyz"]
    for trial_id, number in zip("xyz", again, strict=True):
        if number == numbers[2]:  # its last report is judged again, and is no arrival
            asha.judge(number, epoch=1, value=0.5, score=0.5)
            after.searcher.on_trial_result(trial_id, results([0.5])[0])
    assert list(asha.bracket.rungs[1].points) == came[0]


def test_a_recipe_half_proposed_when_the_driver_died_is_proposed_again(tmp_path: Path) -> None:
    recipe = {"lr": 0.003, "optimizer": "sgd", "batch_size": 32}
    before = Bench(tmp_path, CONTINUOUS, start_from=[recipe])
    before.store.study.ask().suggest_float("lr", 1e-4, 1e-1, log=True)  # and no further

    after = Bench(tmp_path, CONTINUOUS, start_from=[recipe])
    assert after.suggest("a")["params"] == recipe
    assert [record.number for record in after.store.records()] == [1]


def test_a_recipe_that_had_not_begun_when_the_budget_ended_is_proposed_again(tmp_path: Path) -> None:
    recipes = [{"lr": lr, "optimizer": "sgd", "batch_size": 32} for lr in (0.001, 0.002)]
    before = Bench(tmp_path, CONTINUOUS, start_from=recipes, slots=1, ahead=True)
    before.suggest("a")
    before.searcher.on_trial_result("a", results([0.5])[0])
    before.suggest("b")  # ahead of the actor's next
    before.searcher.end_running_trials()
    assert [record.params for record in before.store.records()] == recipes[:1]

    after = Bench(tmp_path, CONTINUOUS, start_from=recipes)
    assert after.suggest("a")["params"] == recipes[1]


def test_the_same_seed_proposes_the_same_search(tmp_path: Path) -> None:
    searches = []
    for name in ("one", "two"):
        bench = Bench(tmp_path / name, CONTINUOUS, sampler={"seed": 7, "startup_trials": 2}, slots=1)
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
