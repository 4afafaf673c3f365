"""What a search does with what it knows of earlier runs: in its study, its proposals, its rungs, and after a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from search.algorithm_config import SamplerConfig
from search.config import SearchConfig, to_yaml
from search.curve_table import CurveTable
from search.extend import used_by
from search.halt import Halt
from search.html_report import write_html_report
from search.knowledge import Knowledge, KnownTrial, write_knowledge
from search.ledger import Ledger, Status
from search.report_source import read_source
from search.results import RunPaths
from search.room import Room
from search.scheduler_choice import build_scheduler
from search.schedulers import FullScheduler
from search.searcher import OptunaSearcher
from search.simulate import simulated
from search.space import Space
from search.spending import Spending
from search.study import StudyStore
from search.trial_attrs import EARLIER
from search.tuner import open_study
from tests.search.earlier import LR, known_to, search, stored
from tests.search.test_searcher import results

SPACE = {"lr": LR, "dropout": {"type": "float", "low": 0.0, "high": 0.5}}
DONE, STOPPED = Status.COMPLETED, Status.STOPPED


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


class Session:
    """A searcher over the study in a run's folder, as a session of the search wires it."""

    def __init__(self, paths: RunPaths, config: SearchConfig) -> None:
        self.config = config
        self.store = open_study(config, paths)
        self.ledger = Ledger(metric=config.metric)
        self.scheduler: FullScheduler = build_scheduler(
            config.scheduler, metric=config.metric, space=config.search_space, seed=0
        )
        self.searcher = OptunaSearcher(
            self.store,
            config.search_space,
            self.ledger,
            scheduler=self.scheduler,
            halt=Halt(),
            spending=Spending(config.budget, config.resources),
            on_finish=lambda _: None,
            max_trials=config.budget.trials,
            room=Room(lambda: 2, ahead=False),
            seed=0,
        )

    def run(self, name: str, values: list[float]) -> tuple[dict[str, Any], int]:
        """Parameters of the next trial, and the epoch at which it ended."""
        config = self.searcher.suggest(name)
        if not isinstance(config, dict):
            return {}, 0
        trial = type("Trial", (), {"config": config, "trial_id": name})
        for result in results(values):
            last = result["epoch"] == len(values)
            if last or self.scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP:
                self.searcher.on_trial_complete(name, result=result)
                return config["params"], result["epoch"]
            self.searcher.on_trial_result(name, result)
        raise AssertionError


def known(lr: float, dropout: float, *, trial: int, score: float = 0.5, **changes: Any) -> KnownTrial:
    each = KnownTrial(
        run="results/first",
        trial=trial,
        params={"lr": lr, "dropout": dropout},
        curve={1: score / 2, 2: score},
        score=score,
        complete=True,
    )
    return replace(each, **changes)


def begun(root: Path, trials: list[KnownTrial]) -> RunPaths:
    """A run's folder with what it starts from, and no study yet."""
    paths = RunPaths(root)
    paths.root.mkdir()
    points = tuple(dict(each.params) for each in trials if each.again)
    write_knowledge(Knowledge(trials=tuple(trials), points=points), paths)
    return paths


def test_earlier_trials_are_none_of_this_run(tmp_path: Path) -> None:
    config = search(SPACE)
    trials = [known(1e-3, 0.1, trial=4, again=True), known(2e-3, 0.2, trial=7, score=0.25, complete=False)]
    paths = begun(tmp_path / "new", trials)
    session = Session(paths, config)
    first, second = session.store.trials()[:2]
    assert (first.state, first.value, first.intermediate_values) == (TrialState.COMPLETE, 0.5, {1: 0.25, 2: 0.5})
    assert (second.state, second.value) == (TrialState.PRUNED, 0.25)
    assert session.store.records() == []
    assert session.ledger.records() == []
    assert session.scheduler.bracket.rungs[1].points == {}  # type: ignore[attr-defined]
    assert used_by(config, paths).trials == 0
    params, _ = session.run("a", [0.1] * 9)
    assert params == {"lr": 1e-3, "dropout": 0.1}
    source = read_source(paths, config=config)
    assert [record.number for record in source.records] == [2]
    assert list(source.times) == [2]
    assert used_by(config, paths).trials == 1


def test_known_parameters_are_run_again_only_where_they_may_win(tmp_path: Path) -> None:
    finite = {"batch_size": {"type": "categorical", "values": [16, 32, 64]}}
    config = search(finite, scheduler={"name": "none", "max_epochs": 9}, sampler={"name": "grid"})
    sizes = {16: False, 32: True}
    trials = [
        replace(known(0, 0, trial=size), params={"batch_size": size}, again=again) for size, again in sizes.items()
    ]
    session = Session(begun(tmp_path / "new", trials), config)
    assert [session.run(name, [0.5])[0] for name in "abc"] == [{"batch_size": 32}, {"batch_size": 64}, {}]
    assert session.searcher.suggest("d") == Searcher.FINISHED


def test_a_starting_point_that_is_known_is_refused_by_name(tmp_path: Path) -> None:
    config = search(SPACE)
    session = Session(begun(tmp_path / "new", [known(1e-3, 0.1, trial=4)]), config)
    session.store.study.enqueue_trial({"lr": 1e-3, "dropout": 0.1})
    assert session.run("a", [0.5])[0] != {"lr": 1e-3, "dropout": 0.1}
    assert session.store.trials()[1].user_attrs == {"not_run": "same parameters as trial 4 of results/first"}


@pytest.mark.parametrize("scheduler", ["asha", "asha_promotion", "median", "hyperband"])
def test_what_is_known_to_be_good_is_not_ended_for_a_slow_start(tmp_path: Path, scheduler: str) -> None:
    config = search(
        SPACE,
        scheduler={"name": scheduler, "max_epochs": 9, "min_trials": 2, "reduction_factor": 3},
        start_from=[{"lr": 5e-3, "dropout": 0.3}, {"lr": 6e-3, "dropout": 0.3}, {"lr": 7e-3, "dropout": 0.3}],
    )
    paths = begun(tmp_path / "new", [known(1e-3, 0.1, trial=4, again=True)])
    session = Session(paths, config)
    for name in "abc":
        session.run(name, [0.5] * 9)
    session = Session(paths, config)  # which a resume is to know as well
    slow = [0.1] * 8 + [0.9]
    ends = [session.run(name, slow) for name in "defg"]  # promotion goes on with an earlier trial first
    assert ({"lr": 1e-3, "dropout": 0.1}, 9) in ends
    assert session.ledger.get(4).status is DONE
    assert [ended for _, ended in ends].count(9) == 1


def test_a_kill_while_a_study_begins_leaves_no_half_knowledge(tmp_path: Path) -> None:
    config = search(SPACE, start_from=[{"lr": 5e-3}, {"lr": 6e-3}])
    trials = [known(1e-3 * (number + 1), 0.1, trial=number, again=number == 0) for number in range(5)]

    def contents(paths: RunPaths) -> list[Any]:
        return [
            (each.state, each.params, each.system_attrs, each.user_attrs) for each in open_study(config, paths).trials()
        ]

    whole = begun(tmp_path / "whole", trials)
    expected = contents(whole)
    journal = whole.study.read_text(encoding="utf-8").splitlines(keepends=True)
    assert len(expected) == 5 + 3
    assert contents(whole) == expected  # a second session adds nothing
    for kept in range(1, len(journal)):
        paths = begun(tmp_path / f"killed-{kept}", trials)
        paths.study.write_text("".join(journal[:kept]), encoding="utf-8")
        assert contents(paths) == expected


def test_a_study_of_an_older_version_gets_no_starting_points_again(tmp_path: Path) -> None:
    config = search(SPACE, start_from=[{"lr": 5e-3}])
    store = StudyStore(
        tmp_path / "study.log", name="old", metric="val_top1", sampler=config.sampler, space=config.search_space
    )
    store.study.enqueue_trial({"lr": 5e-3})
    store.begin(config.starting_points, config.search_space)
    assert len(store.trials()) == 1


def proposals(sampler: dict[str, Any], trials: list[KnownTrial], *, count: int = 6) -> list[dict[str, Any]]:
    config = search({**SPACE, "batch_size": {"type": "categorical", "values": [32, 64]}})
    space = Space(config.space)
    whole = [replace(each, params={**each.params, "batch_size": 64}) for each in trials]
    store = StudyStore(None, name="x", metric="val_top1", sampler=SamplerConfig(**sampler), space=space)
    store.begin([], space, known=whole)
    found = []
    for _ in range(count):
        trial = store.study.ask()
        found.append(space.suggest(trial))
        store.study.tell(trial, 0.1)
    return found


@pytest.mark.parametrize("name", ["curve_gp", "forest", "tpe", "gp", "cmaes", "nsga2", "nsga3"])
def test_samplers_learn_from_earlier_runs_at_once(name: str) -> None:
    """Where 24 earlier trials say that a high lr is good, the first proposals are high; without them they are not."""
    rng = np.random.default_rng(0)
    lrs = 10 ** rng.uniform(-4, -1, 24)
    trials = [
        known(lr, dropout, trial=number, score=0.5 + 0.15 * np.log10(lr / 1e-4), complete=number % 3 == 0)
        for number, (lr, dropout) in enumerate(zip(lrs.tolist(), rng.uniform(0, 0.5, 24).tolist(), strict=True))
    ]
    learned = proposals({"name": name, "population_size": 20}, trials)
    blind = proposals({"name": name, "population_size": 20}, [])
    middle = [float(np.median([np.log10(params["lr"]) for params in found])) for found in (learned, blind)]
    assert middle[0] > -2
    assert middle[0] > middle[1]


@pytest.mark.parametrize("name", ["random", "qmc"])
def test_samplers_that_do_not_learn_go_on_as_ever(name: str) -> None:
    assert len(proposals({"name": name}, [known(1e-3, 0.1, trial=0)])) == 6


def test_earlier_costs_are_learned_from_too() -> None:
    space = Space(search(SPACE).space)
    store = StudyStore(
        None,
        name="x",
        metric="val_top1",
        objectives=("flops",),
        sampler=SamplerConfig(name="forest", startup_trials=2),
        space=space,
    )
    trials = [known(1e-3 * (index + 1), 0.1, trial=index, objectives={"flops": 1e6 * index}) for index in range(4)]
    store.begin([], space, known=trials)
    assert store.trials()[3].values == [0.5, 3e6]
    assert space.suggest(store.study.ask())["lr"] > 0


def test_a_report_says_what_was_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    curve = ({"lr": 1e-3, "dropout": 0.1}, [0.5, 0.6], STOPPED)
    stored(tmp_path / "results" / "first", search(SPACE), [curve, ({"lr": 2e-3, "dropout": 0.1}, [0.4], STOPPED)])
    config = search(SPACE, start_from="results/first")
    paths = RunPaths(tmp_path / "new")
    paths.root.mkdir()
    paths.config.write_text(to_yaml(config), encoding="utf-8")
    write_knowledge(known_to(config), paths)
    session = Session(paths, config)
    session.run("a", [0.5] * 9)
    source = read_source(paths, config=config, records=session.ledger.records())
    page = write_html_report(source).read_text(encoding="utf-8")
    assert "It began with what 2 of the 2 trials of results/first had shown, and ran the best of them again." in page
    assert "Of 1 trial, 1 trained to the end." in page
    # And a third search learns from this run's own trials only; it is told what else there is.
    third = known_to(search(SPACE, start_from=[{"run": str(paths.root)}]), fingerprint=None)
    assert [each.trial for each in third.trials] == [2]
    assert "  2 of other runs, from which it started itself; name those runs too" in third.runs[0].lines


def test_a_simulated_search_starts_from_earlier_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stored(tmp_path / "results" / "first", search(SPACE), [({"lr": 1e-3, "dropout": 0.1}, [0.5, 0.6], STOPPED)])
    config = search(SPACE, start_from="results/first", budget={"trials": 3}, scheduler={"max_epochs": 9})
    table = CurveTable.empty(config.search_space.domains, metric="val_top1", epochs=9)
    for lr in (1e-3, 1e-2, 5e-2):
        table = table.with_training({"lr": lr, "dropout": 0.1}, values=[0.5] * 9, losses=[1.0] * 9, seconds=1.0)
    done = simulated(config, table, devices=1, knowledge=known_to(config, fingerprint=None))
    records = done.machinery.ledger.records()
    assert len(records) == 3
    assert records[0].params == {"lr": 1e-3, "dropout": 0.1}
    assert sum(EARLIER in trial.user_attrs for trial in done.machinery.store.trials()) == 1
