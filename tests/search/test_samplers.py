"""What each sampler proposes: within the space, with its conditions, never twice, learning from what was stopped."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import optuna
import pytest
from optuna.samplers import CmaEsSampler, GPSampler, NSGAIISampler
from optuna.trial import TrialState
from pydantic import ValidationError

from search.algorithm_config import SamplerConfig, SamplerName
from search.config import SearchConfig
from search.config_errors import dotted, problems_of
from search.curve_gp_sampler import CurveGpSampler
from search.curve_sampler import CurveSampler
from search.draws import NearDraw
from search.forest_sampler import ForestSampler
from search.ledger import Status, TrialRecord
from search.proposals import Proposals
from search.results import RunPaths
from search.sampler_views import FewTrials, FinishedTrials, distributions_of, middle_of
from search.samplers import SeesView, build_sampler
from search.study import StudyStore
from search.trial_attrs import OUTCOME
from search.tuner import open_study

CONDITIONAL = {
    "optimizer": {"type": "categorical", "values": ["sgd", "adamw"]},
    "momentum": {"type": "float", "low": 0.5, "high": 0.9},
    "lr": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "dropout": {"type": "float", "low": 0.0, "high": 0.5, "step": 0.1},
    "batch_size": {"type": "int", "low": 16, "high": 128, "log": True},
}
FINITE = {
    "optimizer": {"type": "categorical", "values": ["sgd", "adamw"]},
    "momentum": {"type": "categorical", "values": [0.8, 0.9]},
    "dropout": {"type": "float", "low": 0.0, "high": 0.2, "step": 0.1},
}
SAMPLERS = get_args(SamplerName)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield


def search(
    sampler: str, space: dict[str, Any] = CONDITIONAL, *, options: dict[str, Any] | None = None, **changes: Any
) -> SearchConfig:
    return SearchConfig.model_validate(
        {
            "task": {"data": {"name": "digits"}},
            "space": space,
            "sampler": {"name": sampler, "startup_trials": 3, "population_size": 3, **(options or {})},
            "scheduler": {"max_epochs": 3},
            "budget": {"trials": 100},
            **changes,
        }
    )


class Session:
    """Proposals of a sampler over a study on disk, and how each ended."""

    def __init__(self, root: Path, config: SearchConfig) -> None:
        self.store: StudyStore = open_study(config, RunPaths(root))
        self.proposals = Proposals(self.store, config.search_space, seed=config.sampler.seed)
        for record in self.store.records():
            self.proposals.know(record)

    def run(self, count: int) -> list[TrialRecord]:
        done = []
        for _ in range(count):
            record = self.proposals.next()
            if record is None:
                break
            done.append(record)
            score = 1 - abs(record.params.get("lr", record.params["dropout"]) - 0.05)
            self.end(record, score=score, stopped=record.number % 3 > 0)
        return done

    def end(self, record: TrialRecord, *, score: float, stopped: bool = True) -> None:
        self.store.add_epoch(record.number, epoch=1, value=score)
        status = Status.STOPPED if stopped else Status.COMPLETED
        self.store.finish(TrialRecord(number=record.number, params=record.params, status=status, score=score))


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "grid"])
def test_conditional_spaces_are_searched_and_a_resume_repeats_nothing(
    tmp_path: Path, sampler: str, capfd: pytest.CaptureFixture[str]
) -> None:
    config = search(sampler)
    space = config.search_space
    records = [*Session(tmp_path, config).run(6), *Session(tmp_path, config).run(6)]
    assert all(space.contains(record.params) is None for record in records)
    assert {"momentum" in record.params for record in records} == {True, False}
    assert len({tuple(record.params.items()) for record in records}) == 12
    if sampler in ("tpe", "random", "qmc", "cmaes"):  # children inherit numbers, and a process settles on a bound
        assert len({record.params["lr"] for record in records}) == 12
    told = capfd.readouterr()
    assert "independently" not in told.err + told.out


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "grid"])
def test_the_same_seed_proposes_the_same(tmp_path: Path, sampler: str) -> None:
    one, two = (Session(tmp_path / name, search(sampler)).run(5) for name in ("one", "two"))
    assert [record.params for record in one] == [record.params for record in two]


def test_grid_runs_the_whole_space_in_order_over_sessions(tmp_path: Path) -> None:
    config = search("grid", FINITE, start_from=[{"optimizer": "adamw", "dropout": 0.1}])
    expected = [
        {name: params[name] for name in ("optimizer", "momentum", "dropout") if name in params}
        for params in config.search_space.combinations()
    ]
    first = Session(tmp_path, config).run(3)
    second = Session(tmp_path, config).run(100)
    assert first[0].params == {"optimizer": "adamw", "dropout": 0.1}
    rest = [params for params in expected if params != first[0].params]
    assert [record.params for record in [*first, *second][1:]] == rest
    assert len(first) + len(second) == len(expected) == 9


def test_qmc_goes_on_with_its_sequence(tmp_path: Path) -> None:
    config = search("qmc")
    whole = Session(tmp_path / "whole", config).run(8)
    parts = [record for _ in range(4) for record in Session(tmp_path / "parts", config).run(2)]
    assert [record.params for record in parts] == [record.params for record in whole]
    # Of 8 points of a Sobol sequence two fall into each quarter of an axis.
    quarters = sorted(int(4 * (record.params["dropout"] / 0.6)) for record in whole)
    assert {quarters.count(quarter) for quarter in range(4)} <= {1, 2, 3}


@pytest.mark.parametrize("sampler", ["curve_gp", "forest"])
def test_what_ends_well_is_preferred_to_what_begins_well(tmp_path: Path, sampler: str) -> None:
    """Curves cross: with adamw trials lead after an epoch and are stopped later, with sgd they end better."""
    session = Session(tmp_path, search(sampler))
    for index in range(30):
        record = session.proposals.next()
        assert record is not None
        begin, end = (0.7, 0.75) if record.params["optimizer"] == "adamw" else (0.5, 0.95)
        session.store.add_epoch(record.number, epoch=1, value=begin)
        if index % 3 == 0:
            session.store.add_epoch(record.number, epoch=9, value=end)
        session.store.finish(replace(record, status=Status.STOPPED, score=end if index % 3 == 0 else begin))
    proposed = [session.proposals.next() for _ in range(20)]
    assert sum(record is not None and record.params["optimizer"] == "sgd" for record in proposed) >= 15


@pytest.mark.parametrize("sampler", ["gp", "cmaes", "nsga2", "nsga3"])
def test_learning_begins_although_nothing_is_complete(tmp_path: Path, sampler: str) -> None:
    """Proposals move to where stopped trials were good."""
    space = {
        "lr": {"type": "float", "low": 0.0001, "high": 1.0},
        "dropout": {"type": "float", "low": 0.0, "high": 0.9},
    }
    config = search(sampler, space, options={"startup_trials": 6, "population_size": 6, "seed": 1})
    session = Session(tmp_path, config)
    distances = []
    for _ in range(12 if sampler == "gp" else 42):
        record = session.proposals.next()
        assert record is not None
        distances.append(abs(record.params["lr"] - 0.9) + abs(record.params["dropout"] - 0.8))
        session.end(record, score=2 - distances[-1])
    late = distances[-5:] if sampler == "gp" else distances[-12:]
    assert sum(late) / len(late) < 0.7 * sum(distances[:6]) / 6


def test_what_a_sampler_is_shown(tmp_path: Path) -> None:
    config = search("gp")
    session = Session(tmp_path, config)
    records = [record for record in (session.proposals.next() for _ in range(5)) if record is not None]
    session.end(records[0], score=0.8, stopped=False)
    session.end(records[1], score=0.3)
    out_of_memory = {"status": Status.FAILED, "cause": "out of memory", "message": "too large"}
    session.store.finish(TrialRecord(number=2, params=records[2].params, **out_of_memory))  # type: ignore[arg-type]
    broken = TrialRecord(number=3, params=records[3].params, status=Status.FAILED, cause="DataError", message="x")
    session.store.finish(broken)

    shown = FinishedTrials(session.store.study, fill=config.search_space).get_trials(deepcopy=False)
    states = [trial.state for trial in shown]
    assert states == [TrialState.COMPLETE] * 3 + [TrialState.FAIL, TrialState.RUNNING]
    assert [trial.value for trial in shown[:3]] == [0.8, 0.3, 0.3]  # infeasible is as bad as the worst
    assert [trial.constraints for trial in shown[:3]] == [{"infeasible": value} for value in (0.0, 0.0, 1.0)]
    assert all(set(trial.params) == set(CONDITIONAL) for trial in shown[:3])
    lacking = next(number for number in range(3) if "momentum" not in records[number].params)
    assert shown[lacking].params["momentum"] == pytest.approx(0.7)
    # The study itself is untouched.
    real = session.store.trials()
    assert [trial.state.name for trial in real] == ["COMPLETE", "PRUNED", "PRUNED", "FAIL", "RUNNING"]
    assert "momentum" not in real[lacking].params


def test_the_middle_of_a_domain() -> None:
    domains = distributions_of(search("random").search_space)
    middles = {name: middle_of(domain) for name, domain in domains.items()}
    assert middles == {
        "optimizer": "sgd",
        "momentum": pytest.approx(0.7),
        "lr": pytest.approx(10**-2.5),
        "dropout": pytest.approx(0.2),
        "batch_size": 45,
    }
    for name, domain in domains.items():
        assert domain._contains(domain.to_internal_repr(middles[name])), name


@pytest.mark.slow
def test_infeasible_trials_repel_the_samplers_that_know_constraints(tmp_path: Path) -> None:
    space = {"lr": {"type": "float", "low": 0.01, "high": 1.0}, "dropout": {"type": "float", "low": 0.0, "high": 0.9}}
    config = search("gp", space, options={"startup_trials": 6})
    session = Session(tmp_path, config)
    for number in range(12):
        record = session.proposals.next()
        assert record is not None
        if record.params["lr"] > 0.5:  # where the score would be best
            failed = TrialRecord(number=number, params=record.params, status=Status.FAILED, cause="out of memory")
            session.store.finish(failed)
        else:
            session.end(record, score=record.params["lr"])
    late = [record.params["lr"] for record in session.store.records()[6:]]
    assert sum(rate <= 0.5 for rate in late) >= 4


@pytest.mark.parametrize(("sampler", "kind"), [("gp", GPSampler), ("cmaes", CmaEsSampler), ("nsga2", NSGAIISampler)])
def test_samplers_that_skip_stopped_trials_are_shown_them(sampler: SamplerName, kind: type) -> None:
    built = build_sampler(SamplerConfig(name=sampler), trials_so_far=0, space=search(sampler).search_space)
    assert isinstance(built, SeesView)
    assert isinstance(built._sampler, kind)
    assert isinstance(built._shown(optuna.create_study()), FinishedTrials)


@pytest.mark.parametrize(("direction", "best"), [("maximize", range(50, 100)), ("minimize", range(50))])
def test_of_thousands_of_trials_tpe_is_shown_the_best_and_the_latest(direction: str, best: range) -> None:
    study = optuna.create_study(direction=direction)
    study.add_trials([optuna.trial.create_trial(value=float(number)) for number in range(100)])
    view = FewTrials(study)
    assert view.trials == study.trials
    for _ in range(2):
        study.add_trials([optuna.trial.create_trial(value=49.5) for _ in range(500)])
        shown = view.get_trials(deepcopy=False)
    assert [trial.number for trial in shown] == [*best, *range(150, 1_100)]


def test_a_trial_that_ends_long_after_later_ones_is_still_among_the_best() -> None:
    study = optuna.create_study(direction="maximize")
    slow = study.ask()
    study.add_trials([optuna.trial.create_trial(value=0.5) for _ in range(1_500)])
    view = FewTrials(study)
    assert slow.number not in {trial.number for trial in view.trials}
    study.tell(slow, 0.9)
    assert slow.number in {trial.number for trial in view.trials}


def test_of_thousands_of_trials_with_two_objectives_the_front_is_shown() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    front = [optuna.trial.create_trial(values=[float(step), float(step)]) for step in range(20)]
    worse = [optuna.trial.create_trial(values=[0.0, 30.0]) for _ in range(1_200)]
    study.add_trials([*worse[:100], *front, *worse[100:]])
    shown = {trial.number for trial in FinishedTrials(study, fill=None).trials}
    assert shown.issuperset(range(100, 120))
    assert len(shown) == 1_000
    assert len(FinishedTrials(study, fill=None, most=None).trials) == 1_220


@pytest.mark.parametrize(
    ("sampler", "scheduler", "space", "sentence"),
    [
        (
            "grid",
            "asha",
            CONDITIONAL,
            "sampler.name: grid needs a finite space, found momentum, lr without a step; give each a step or values, "
            "or write name: qmc",
        ),
        (
            "cmaes",
            "asha",
            {name: CONDITIONAL[name] for name in ("optimizer", "momentum", "lr")},
            "sampler.name: cmaes needs two or more numbers that every trial has, found lr; search more of them, or "
            "write name: tpe",
        ),
        (
            "tpe",
            "pbt",
            {name: CONDITIONAL[name] for name in ("optimizer", "batch_size")},
            "scheduler.name: pbt changes parameters while a trial trains, found none among optimizer, batch_size that "
            "can; search for instance lr or weight_decay, or write name: asha",
        ),
    ],
)
def test_what_does_not_suit_the_space_is_told(
    sampler: str, scheduler: str, space: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        search(sampler, space, scheduler={"name": scheduler, "max_epochs": 9})
    assert [f"{dotted(loc)}: {text}" for loc, text in problems_of(caught.value, SearchConfig)] == [sentence]


def test_draws_near_a_point_stay_in_the_space_and_near() -> None:
    space = search("forest").search_space
    rng = random.Random(0)
    moved = dict.fromkeys(("lr", "dropout", "batch_size", "optimizer"), 0)
    for _ in range(200):
        start = space.draw(rng)
        near = space.suggest(NearDraw(start, rng=rng, reach=0.1, anew=0.0))
        assert space.contains({name: near[name] for name in space.searched if name in near}) is None
        assert near["optimizer"] == start["optimizer"]
        assert abs(math.log(near["lr"] / start["lr"])) <= 0.1 * math.log(1e3) + 1e-9
        assert abs(near["dropout"] - start["dropout"]) <= 0.1 + 1e-9  # a step
        assert abs(math.log(near["batch_size"] / start["batch_size"])) <= 0.1 * math.log(8) + math.log(17 / 16)
        far = space.suggest(NearDraw(start, rng=rng, reach=0.1, anew=0.5))
        for name in moved:
            moved[name] += far[name] != start[name]
    assert all(count > 40 for count in moved.values())


def left_of_a_model(
    name: SamplerName, kind: type[CurveSampler], *, seen: int, proposals: int, train_s: float = 0.0
) -> list[int]:
    """How many proposals are ready after each of some, whose trials report an epoch, in a study of so many."""
    space = search(name, FINITE).search_space
    sampler = build_sampler(SamplerConfig(name=name), trials_so_far=0, space=space)
    assert isinstance(sampler, kind)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    ended = optuna.trial.create_trial(
        value=0.5,
        intermediate_values={1: 0.5},
        params={"dropout": 0.1, "optimizer": "sgd", "momentum": 0.9},
        distributions=distributions_of(space),
        user_attrs={OUTCOME: {"train_s": train_s}},
    )
    study.add_trials([ended] * seen)
    left = []
    for _ in range(proposals):
        trial = study.ask()
        space.suggest(trial)
        left.append(len(sampler._ahead))
        trial.report(0.6, 1)
        study.tell(trial, state=TrialState.PRUNED)
    return left


@pytest.mark.parametrize(("train_s", "expected"), [(0.05, [*range(49, 41, -1), 49]), (1.0, [49] * 9)])
def test_where_trials_are_quick_one_model_serves_several(train_s: float, expected: list[int]) -> None:
    """A model takes as long as eight trainings of 50 ms may cost."""
    assert left_of_a_model("curve_gp", CurveGpSampler, seen=20, proposals=9, train_s=train_s) == expected


@pytest.mark.parametrize(("num_trials", "expected"), [(400, [49, 49, 49, 49]), (1_200, [49, 48, 49, 48])])
def test_in_a_long_search_a_forest_proposes_until_there_is_news(num_trials: int, expected: list[int]) -> None:
    """A forest of 1,200 epochs proposes until two trials more have told something."""
    assert left_of_a_model("forest", ForestSampler, seen=num_trials, proposals=4) == expected
