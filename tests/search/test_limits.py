"""Candidates that cost too much are refused before they train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from search.config import load_search
from search.measured_costs import MeasuredCosts
from search.preflight import check_search
from search.proposals import Proposals
from search.results import RunPaths
from search.space import Space
from search.tuner import open_study
from tests.search.cli import TINY, leaderboard_of, run, write_space
from trainables.errors import ConfigError, ModelError

WIDTHS = {
    "arch": "cnn",
    "cnn_stages": 2,
    "cnn_depth": 1,
    "cnn_width": {"type": "int", "low": 8, "high": 64},
    "lr": 0.01,
}


@pytest.mark.ray
@pytest.mark.slow
def test_what_exceeds_a_limit_is_not_trained_and_the_trials_are_all_run(tmp_path: Path) -> None:
    space = write_space(
        tmp_path,
        space=WIDTHS,
        scheduler={"name": "none", "max_epochs": 1},
        budget={"trials": 8},
        limits={"num_params": 3e4},
    )
    status, out, err = run(space, "--name", "a", "--storage-path", tmp_path)
    assert status == 0, err
    paths = RunPaths(tmp_path / "a")
    widths = [int(row["cnn_width"]) for row in leaderboard_of(paths.root).values()]
    assert len(widths) == 8
    assert max(widths) < 40  # with 40 there are more than 30,000 parameters
    refused = json.loads(paths.summary.read_text())["refused"]
    assert refused["num_params"] > 0
    assert f"{refused['num_params']} proposal(s) not run: num_params above 30000" in out


def test_a_refused_candidate_is_a_constraint_violation_and_takes_no_trial(tmp_path: Path) -> None:
    config = load_search(write_space(tmp_path, space={**TINY["space"], "batch_size": 64}))
    store = open_study(config, RunPaths(tmp_path / "run"))

    def measure(params: Any) -> dict[str, float]:
        return {"latency_ms": 9 if params["lr"] > 2e-3 else 3}

    proposals = Proposals(store, config.search_space, seed=0, measure=measure, limits={"latency_ms": 3})
    proposed = [proposals.next() for _ in range(6)]
    assert all(each is not None and each.params["lr"] <= 2e-3 for each in proposed)
    refused = [trial for trial in store.trials() if "not_run" in trial.user_attrs]
    assert refused
    assert all(trial.user_attrs["not_run"] == "limit: latency_ms 9 is above the limit 3" for trial in refused)
    assert all(any(value > 0 for value in trial.constraints.values()) for trial in refused)


def test_proposals_end_where_nothing_keeps_to_the_limits(tmp_path: Path) -> None:
    config = load_search(write_space(tmp_path, space={"arch": "small_cnn", "batch_size": TINY["space"]["batch_size"]}))
    store = open_study(config, RunPaths(tmp_path / "run"))
    space = Space(config.space)
    limits = {"model_mib": 3.0}
    assert Proposals(store, space, seed=0, measure=lambda _: {"model_mib": 9.0}, limits=limits).next() is None


def test_only_what_is_about_to_be_proposed_is_measured(tmp_path: Path) -> None:
    sizes = {"type": "int", "low": 1, "high": 500}
    config = load_search(write_space(tmp_path, space={"arch": "small_cnn", "batch_size": sizes}))
    store = open_study(config, RunPaths(tmp_path / "run"))
    measured = []

    def measure(params: Any) -> dict[str, float]:
        measured.append(params)
        return {"latency_ms": 1.0}

    known = Proposals(store, config.search_space, seed=0)
    first = known.next()
    assert first is not None
    proposals = Proposals(store, config.search_space, seed=0, measure=measure, limits={"latency_ms": 3})
    proposals.know(first)
    store.study.enqueue_trial(dict(first.params))  # which is refused, so that another is drawn from all combinations
    assert proposals.next() is not None
    assert len(measured) == 1


def test_a_search_in_which_nothing_can_keep_to_them_is_refused(tmp_path: Path) -> None:
    archs = {"arch": {"type": "categorical", "values": ["small_cnn", "resnet10t"]}, "input_size": 32, "lr": 0.01}
    config = load_search(write_space(tmp_path, space=archs, limits={"num_params": 1e5}))
    with pytest.raises(
        ConfigError, match=r"limits: no architecture .*small_cnn: num_params 162,\d+ is above .*100,000"
    ):
        check_search(config)
    check_search(load_search(write_space(tmp_path, space=archs, limits={"num_params": 1e6})))


@pytest.mark.parametrize("objectives", [(), ("num_params",)])
def test_a_network_that_cannot_be_built_is_one_proposal_less(tmp_path: Path, objectives: tuple[str, ...]) -> None:
    arch, sides = "torchvision/vit_b_16", {"type": "categorical", "values": [32, 50]}
    space = {"arch": arch, "input_size": sides, "lr": TINY["space"]["lr"]}
    metric = {"metric": ["val_top1", *objectives]} if objectives else {}
    limits = {} if objectives else {"num_params": 1e9}
    config = load_search(write_space(tmp_path, space=space, task={**TINY["task"], **metric}, limits=limits))
    costs = MeasuredCosts(config, check_search(config).data)
    store = open_study(config, RunPaths(tmp_path / "run"))
    whole = {"measure": costs.of, "limits": limits, "objectives": objectives}
    proposals = Proposals(store, config.search_space, seed=0, **whole)
    proposed = [proposals.next() for _ in range(6)]
    assert {each.params["input_size"] for each in proposed if each is not None} == {32}
    told = [trial.user_attrs["not_run"] for trial in store.trials() if "not_run" in trial.user_attrs]
    assert told and all(each.startswith(f"cannot be built: {arch}: ") for each in told)


def test_what_is_forbidden_is_not_tried_before_the_search(tmp_path: Path) -> None:
    archs = {"arch": {"type": "categorical", "values": ["small_cnn", "resnet10t"]}, "lr": 0.01}
    truth = {"pretrained": {"type": "categorical", "values": [True, False]}}
    space = write_space(tmp_path, space={**archs, **truth, "input_size": 32})
    with pytest.raises(ModelError, match="small_cnn: it has no pretrained weights"):
        check_search(load_search(space))
    space = write_space(
        tmp_path, space={**archs, **truth, "input_size": 32}, forbid=[{"arch": "small_cnn", "pretrained": True}]
    )
    assert set(check_search(load_search(space)).num_parameters) == {"small_cnn", "resnet10t"}


def test_batches_are_split_over_the_workers_of_their_own_architecture(tmp_path: Path) -> None:
    archs = {"type": "categorical", "values": ["small_cnn", "resnet10t"]}
    sizes = {"type": "categorical", "values": [2, 64]}
    sections = {
        "space": {"arch": archs, "batch_size": sizes, "lr": 0.01, "input_size": 32},
        "resources": {"workers": {"default": 1, "resnet10t": 4}},
    }
    with pytest.raises(ConfigError, match=r"batch_size: 2 images cannot be split over resources.workers: 4"):
        check_search(load_search(write_space(tmp_path, **sections)))
    check_search(load_search(write_space(tmp_path, **sections, forbid=[{"arch": "resnet10t", "batch_size": 2}])))
    sections["space"] = {**sections["space"], "batch_size": {**sizes, "when": {"arch": "small_cnn"}}}
    check_search(load_search(write_space(tmp_path, **sections)))


def test_limits_are_not_asked_of_forbidden_architectures(tmp_path: Path) -> None:
    archs = {"type": "categorical", "values": ["small_cnn", "torchvision/vit_b_16"]}
    sections = {
        "space": {"arch": archs, "input_size": 50, "lr": 0.01},  # which no patches of the ViT divide
        "limits": {"num_params": 1e9},
        "forbid": [{"arch": "torchvision/vit_b_16"}],
    }
    check_search(load_search(write_space(tmp_path, **sections)))
