"""Searches for trade-offs: what is measured, proposed, stopped, kept and told when networks are to cost little too."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from search.asha import AshaScheduler
from search.budget_config import KeepConfig
from search.config import SearchConfig, load_search
from search.keep import Keeper
from search.ledger import Status, TrialRecord
from search.promotion import PromotionScheduler
from search.proposals import Proposals
from search.results import RunPaths
from search.schedulers import Decision
from search.simulate import main as simulate
from search.study import StudyStore
from search.tuner import open_study
from tests.search.cli import TINY, run, summary_of, trials_of, write_space
from trainables.errors import ConfigError

SPACE: dict[str, Any] = {
    "arch": "cnn",
    "cnn_stages": 1,
    "cnn_depth": 1,
    "cnn_width": {"type": "int", "low": 4, "high": 64},
    "lr": {"type": "float", "low": 1e-3, "high": 1e-1, "log": True},
    "dropout": {"type": "float", "low": 0.0, "high": 0.5},
}
TASK = {"data": {"name": "digits"}, "metric": ["val_top1", "num_params"]}


def search(tmp_path: Path, **sections: Any) -> SearchConfig:
    sections = {"task": TASK, "space": SPACE, "budget": {"trials": 100}, **sections}
    return load_search(write_space(tmp_path, **sections))


class Session:
    """Proposals whose network costs 10 parameters for each channel, with a score that rises with them, to a limit."""

    def __init__(self, root: Path, config: SearchConfig) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.store: StudyStore = open_study(config, RunPaths(root))
        self.proposals = Proposals(
            self.store,
            config.search_space,
            seed=0,
            measure=lambda params: {"num_params": 10.0 * params["cnn_width"]},
            objectives=config.objectives,
        )
        self.proposals.withdraw_half_made()
        for record in self.store.records():
            self.proposals.know(record)

    def run(self, count: int) -> list[TrialRecord]:
        done = []
        for _ in range(count):
            record = self.proposals.next()
            assert record is not None
            score = min(record.params["cnn_width"], 32) / 64 - 2 * abs(record.params["dropout"] - 0.2)
            self.store.add_epoch(record.number, epoch=1, value=score)
            status = Status.STOPPED if record.number % 3 else Status.COMPLETED
            ended = TrialRecord(
                number=record.number, params=record.params, status=status, score=score, objectives=record.objectives
            )
            self.store.finish(ended)
            done.append(ended)
        return done


@pytest.mark.parametrize(
    ("metric", "sentence"),
    [
        (["num_params"], "must begin with a validation metric, found 'num_params'; write [val_top1, num_params]"),
        (["val_top1", "val_loss"], "takes one validation metric, the first, found val_top1 and val_loss; keep one"),
        (["val_top1", "flops", "flops"], "names an objective twice, found flops, flops; keep one of each"),
        (["val_top1", "speed"], "'speed'"),
        ([], "must be a metric or a list of names, found a list"),
    ],
)
def test_unusable_objectives_are_told(tmp_path: Path, metric: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=rf"space\.yaml:\d+: task\.metric.*{re.escape(sentence)}"):
        search(tmp_path, task={**TASK, "metric": metric})


def test_one_metric_may_stand_alone_or_in_a_list(tmp_path: Path) -> None:
    alone = search(tmp_path, task={**TASK, "metric": "val_top1"})
    listed = search(tmp_path, task={**TASK, "metric": ["val_top1"]})
    assert alone == listed
    assert (alone.metric, alone.objectives) == ("val_top1", ())


@pytest.mark.parametrize(
    ("section", "name"), [("sampler", "cmaes"), ("scheduler", "pbt"), ("scheduler", "median"), ("scheduler", "curves")]
)
def test_what_takes_one_objective_is_refused(tmp_path: Path, section: str, name: str) -> None:
    changed = {section: {**TINY.get(section, {}), "name": name}}
    with pytest.raises(ConfigError, match=rf"{section}\.name: {name} takes one objective, found several in task"):
        search(tmp_path, **changed)


def test_a_simulation_says_that_curves_know_no_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = write_space(tmp_path, task=TASK, space=SPACE)
    curves = Path(__file__).parents[1] / "benchmarks" / "curves" / "digits.npz"
    assert simulate([str(space), "--curves", str(curves)]) == 2
    assert "task.metric: recorded curves know no costs, found val_top1, num_params; keep val_top1" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("sampler", ["curve_gp", "forest", "tpe", "gp", "nsga2", "nsga3", "qmc", "random"])
def test_samplers_propose_for_several_objectives_over_sessions(tmp_path: Path, sampler: str) -> None:
    config = search(tmp_path, sampler={"name": sampler, "startup_trials": 4, "population_size": 4})
    records = [*Session(tmp_path / "run", config).run(7), *Session(tmp_path / "run", config).run(5)]
    assert len({tuple(record.params.items()) for record in records}) == 12
    every = Session(tmp_path / "run", config).store.trials()
    trials = [trial for trial in every if "not_run" not in trial.user_attrs]
    assert [trial.values for trial in trials] == [
        [record.score, 10.0 * record.params["cnn_width"]] for record in records
    ]
    assert Session(tmp_path / "run", config).store.records()[3].objectives == records[3].objectives


@pytest.mark.parametrize("sampler", ["curve_gp", "forest"])
def test_models_of_curves_find_the_whole_front(tmp_path: Path, sampler: str) -> None:
    """Wider is better up to 32 channels, and dearer: beyond them nothing is to be gained."""
    config = search(tmp_path, sampler={"name": sampler, "startup_trials": 10})
    late = Session(tmp_path / "run", config).run(50)[20:]
    widths = [record.params["cnn_width"] for record in late]
    assert sum(width > 40 for width in widths) < len(widths) / 4  # 40 % of the range
    assert min(widths) < 12 and any(24 <= width <= 40 for width in widths)
    assert sum(abs(record.params["dropout"] - 0.2) < 0.1 for record in late) > len(late) / 2  # 40 % of the range


def test_a_proposal_that_was_not_measured_when_the_driver_died_is_withdrawn(tmp_path: Path) -> None:
    config = search(tmp_path)
    session = Session(tmp_path / "run", config)
    session.run(2)
    config.search_space.suggest(session.store.study.ask())  # killed before `measured`
    again = Session(tmp_path / "run", config)
    assert again.store.trials()[2].state is TrialState.FAIL
    assert [record.number for record in again.run(1)] == [3]


def test_a_rung_keeps_the_trade_offs_and_stops_what_is_beaten() -> None:
    def judge(number: int, score: float, cost: float) -> Decision:
        scheduler.add(TrialRecord(number=number, params={}, objectives={"flops": cost}))
        return scheduler.judge(number, epoch=1, value=score, score=score)

    scheduler = AshaScheduler(metric="val_top1", objectives=["flops"], grace_period=1, reduction_factor=2, max_epochs=4)
    assert judge(0, 0.9, 9.0) is Decision.GO_ON
    assert judge(1, 0.8, 9.5) is Decision.STOP  # worse and dearer
    assert judge(2, 0.5, 1.0) is Decision.GO_ON  # worse, but much cheaper
    assert judge(3, 0.4, 1.5) is Decision.STOP
    assert judge(4, 0.95, 9.0) is Decision.GO_ON
    assert judge(5, 0.6, 0.5) is Decision.GO_ON


def test_promotion_sends_on_the_front() -> None:
    scheduler = PromotionScheduler(
        metric="val_top1", objectives=["flops"], grace_period=1, reduction_factor=2, max_epochs=4
    )
    for number, (score, cost) in enumerate([(0.9, 9.0), (0.8, 9.5), (0.5, 1.0), (0.4, 1.5)]):
        scheduler.add(TrialRecord(number=number, params={}, objectives={"flops": cost}))
        assert scheduler.judge(number, epoch=1, value=score, score=score) is Decision.PAUSE
    sent = [step.number for step in iter(lambda: scheduler.next_step(closing=False), None)]
    assert sorted(sent) == [0, 2]


def test_weights_of_the_front_stay(tmp_path: Path) -> None:
    keeper = Keeper(
        KeepConfig(top=1),
        metric="val_top1",
        objectives=["flops"],
        weights=lambda number: tmp_path / f"{number}.safetensors",
    )
    for number, (score, cost) in enumerate([(0.5, 1.0), (0.9, 9.0), (0.4, 2.0), (0.7, 3.0), (0.6, 4.0)]):
        (tmp_path / f"{number}.safetensors").write_bytes(b"weights")
        record = TrialRecord(number=number, params={}, score=score, objectives={"flops": cost})
        keeper.ended(record)
    assert sorted(path.stem for path in tmp_path.glob("*.safetensors")) == ["0", "1", "3"]


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_for_trade_offs_end_to_end(tmp_path: Path) -> None:
    space = write_space(tmp_path, task=TASK, space={**SPACE, "batch_size": 64}, budget={"trials": 10}, keep={"top": 1})
    status, out, err = run(space, "--name", "run", "--storage-path", tmp_path)
    assert (status, err) == (0, ""), out
    folder = tmp_path / "run"
    assert "Pareto front" in out
    with (folder / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    points = {int(row["trial"]): (float(row["val_top1"]), float(row["num_params"])) for row in rows}
    beaten = {
        number
        for number, (score, cost) in points.items()
        for other, cheaper in points.values()
        if other >= score and cheaper <= cost and (other, cheaper) != (score, cost)
    }
    front = {int(row["trial"]) for row in rows if row["pareto"] == "yes"}
    assert front == set(points) - beaten
    for trial in trials_of(folder):
        assert trial.values == pytest.approx(points[trial.number], abs=1e-6)
    assert {each["trial"] for each in summary_of(folder)["pareto"]} == front
    assert 'id="pareto"' in (folder / "report.html").read_text()
    # What is on the front can be had, also if it is not the winner.
    best = json.loads((folder / "summary.json").read_text())["best"]["trial"]
    kept = {int(path.parent.name) for path in folder.glob("trials/*/best.safetensors")}
    assert front <= kept and best in front
