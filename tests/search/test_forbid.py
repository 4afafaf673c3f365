"""What is forbidden is never run, never counted, and told to the sampler as infeasible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from search.config import SearchConfig, load_search, to_yaml
from search.launch import CAUSE, FAILURE, OUT_OF_MEMORY
from search.ledger import Status
from tests.search.space_files import refusal, search_of, space_file, write
from tests.search.test_searcher import Bench, results

SPACE = {
    "optimizer": {"type": "categorical", "values": ["sgd", "adamw"]},
    "batch_size": {"type": "int", "low": 16, "high": 64, "step": 16},
    "lr": {"type": "float", "low": 0.01, "high": 1.0},
}
FORBID: list[Any] = [{"optimizer": "sgd", "batch_size": [16, 32]}, {"lr": {"above": 0.2}}]


def test_forbidden_trials_are_proposed_again(tmp_path: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    bench = Bench(tmp_path, SPACE, forbid=FORBID, budget={"trials": 25})
    space = bench.config.search_space
    while (proposed := bench.suggest("a")) != Searcher.FINISHED:
        params = proposed["params"]
        assert params["lr"] <= 0.2
        assert params["optimizer"] == "adamw" or params["batch_size"] > 32
        bench.searcher.on_trial_complete("a", result=results([0.5])[0])
    assert len(bench.store.records()) == 25
    refused = [trial for trial in bench.store.trials() if trial.constraints]
    assert refused
    assert all(trial.state is TrialState.PRUNED and trial.constraints == {"forbidden": 1.0} for trial in refused)
    assert all(space.forbidden(trial.params) for trial in refused)
    # 80 % of the range is forbidden: a sampler that was not told would be refused about 4 times for every trial.
    late = [trial for trial in bench.store.trials() if trial.number >= len(bench.store.trials()) // 2]
    assert sum(bool(trial.constraints) for trial in late) < len(late) / 2


def test_tpe_keeps_away_from_what_ran_out_of_memory(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"dropout": {"type": "float", "low": 0.0, "high": 0.9}}, budget={"trials": 50})
    for _ in range(50):
        dropout = bench.suggest("a")["params"]["dropout"]
        ended = {FAILURE: "CUDA out of memory", CAUSE: OUT_OF_MEMORY} if dropout > 0.5 else results([0.5])[0]
        bench.searcher.on_trial_complete("a", result=ended)
        if bench.halt.requested:
            break
    failed = [record for record in bench.store.records() if record.status is Status.FAILED]
    assert failed
    assert all(record.cause == OUT_OF_MEMORY for record in failed)
    frozen = [bench.frozen(record.number) for record in failed]
    assert all(trial.state is TrialState.PRUNED and trial.constraints == {"memory": 1.0} for trial in frozen)
    assert all(trial.value is None for trial in frozen)
    assert sum(record.number >= 25 for record in failed) < sum(record.number < 25 for record in failed)


def test_finite_spaces_end_after_all_that_is_allowed(tmp_path: Path) -> None:
    finite = {"optimizer": SPACE["optimizer"], "batch_size": SPACE["batch_size"]}
    bench = Bench(tmp_path, finite, forbid=FORBID[:1], budget={"trials": 100})
    seen = set()
    while (proposed := bench.suggest("a")) != Searcher.FINISHED:
        seen.add(tuple(proposed["params"].values()))
        bench.searcher.on_trial_complete("a", result=results([0.5])[0])
    assert len(seen) == len(bench.store.records()) == bench.config.search_space.num_combinations == 2 * 4 - 2


def test_a_resume_continues_a_trial_without_the_parameters_that_do_not_exist(tmp_path: Path) -> None:
    space = {**SPACE, "momentum": {"type": "float", "low": 0.5, "high": 0.9}}
    recipe = {"optimizer": "adamw", "batch_size": 16, "lr": 0.1}
    before = Bench(tmp_path, space, start_from=[recipe])
    interrupted = before.suggest("a")
    assert interrupted["params"] == recipe
    assert Bench(tmp_path, space, start_from=[recipe]).suggest("b") == interrupted


def test_a_branch_that_is_used_up_does_not_hold_the_search(tmp_path: Path) -> None:
    """With one optimizer everything is fixed; the sampler likes that trial best, and it can be run only once."""
    space = {
        "optimizer": {"type": "categorical", "values": ["sgd", "adamw"]},
        "lr": {"type": "float", "low": 0.01, "high": 1.0, "when": {"optimizer": "sgd"}},
    }
    bench = Bench(tmp_path, space, budget={"trials": 16}, sampler={"startup_trials": 4})
    for _ in range(16):
        proposed = bench.suggest("a")["params"]
        value = 0.9 if proposed["optimizer"] == "adamw" else 0.1
        bench.searcher.on_trial_complete("a", result=results([value])[0])
    optimizers = [record.params["optimizer"] for record in bench.store.records()]
    assert optimizers.count("adamw") == 1


def test_counted_and_round_trip(tmp_path: Path) -> None:
    config = search_of(
        tmp_path,
        space="{arch: {type: categorical, values: [small_cnn, resnet18]}, batch_size: {type: int, low: 1, high: 100}, "
        "optimizer: sgd}",
        forbid="[{arch: resnet18, batch_size: {above: 10, below: 51}}, {batch_size: [3, 4], optimizer: sgd}]",
    )
    space = config.search_space
    assert space.num_combinations == len(list(space.combinations())) == 98 + 98 - 40
    assert space.forbidden({"batch_size": 3}) == "batch_size is 3 or 4 and optimizer is sgd"
    assert "is part of a forbidden combination, found arch is resnet18 and batch_size is above 10 and below 51" in str(
        space.contains({"arch": "resnet18", "batch_size": 11})
    )
    assert space.contains({"arch": "resnet18", "batch_size": 51}) is None
    assert load_search(write(tmp_path, to_yaml(config))) == config
    assert SearchConfig.model_validate_json(config.model_dump_json(), strict=True) == config
    assert space.describe()[-1] == ("forbidden", "batch_size is 3 or 4 and optimizer is sgd")


@pytest.mark.parametrize(
    ("forbid", "sentence"),
    [
        ("3", "forbid: must be a list of combinations, found 3; write - {arch: resnet50, batch_size: {above: 128}}"),
        ("[{}]", "forbid.0: must map parameters to values, found a mapping; write -"),
        ("[{arch: []}]", "forbid.0.arch: must hold at least 1 value, found an empty list"),
        ("[{arch: {abve: 3}}]", "forbid.0.arch.abve: unknown key, found 'abve'; did you mean above?"),
        ("[{arch: resnet34}]", "forbid.0.arch: must be one of small_cnn, resnet18, found 'resnet34'; write one of"),
        ("[{lr: {above: 9}}]", "forbid.0.lr: holds for no value of lr, found lr: 0.1 … 1; move the bound"),
        ("[{optimizer: sgd}]", "forbid.0.optimizer: is not in the space, where it has its default adamw"),
        ("[{lr: {above: 0.5}}, {lr: {below: 0.6}}]", "forbid: leaves no trial to run, found lr is above 0.5; lr is be"),
    ],
)
def test_refused(tmp_path: Path, forbid: str, sentence: str) -> None:
    path = space_file(
        tmp_path,
        space="{arch: {type: categorical, values: [small_cnn, resnet18]}, lr: {type: float, low: 0.1, high: 1}}",
        forbid=forbid,
    )
    (line,) = refusal(path)
    assert line.startswith(f"{path}:5: {sentence}")


def test_forbidden_starting_points_are_told(tmp_path: Path) -> None:
    path = space_file(
        tmp_path,
        space="{lr: {type: float, low: 0.1, high: 1}, batch_size: 64}",
        forbid="[{lr: {above: 0.5}, batch_size: 64}]",
        start_from="[{lr: 0.7}]",
    )
    (line,) = refusal(path)
    assert line.startswith(f"{path}:6: start_from.0.lr: is part of a forbidden combination, found lr is above 0.5 and")
