"""A search begins with what a person expects, more often so the surer they are, and then forgets it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pytest

from search.config import load_search, to_yaml
from search.domains import CategoricalDomain, FloatDomain, IntDomain
from search.priors import SHARES, prior_points
from search.results import RunPaths
from search.study import StudyStore
from tests.search.space_files import refusal, search_of, space_file, write

LR: dict[str, Any] = {"type": "float", "low": 1e-5, "high": 1e-1, "log": True}


@pytest.mark.parametrize("confidence", ["low", "medium", "high"])
def test_the_share_of_points_near_the_prior_is_that_of_the_confidence(confidence: str) -> None:
    domain = FloatDomain.model_validate({**LR, "prior": {"value": 1e-3, "confidence": confidence}})
    points = prior_points({"lr": domain}, trials=4001, seed=0)
    assert points[0] == {"lr": 1e-3}
    drawn = [point["lr"] for point in points[1:]]
    assert len(drawn) / 4000 == pytest.approx(SHARES[confidence], abs=0.03)
    # A deviation of one decade, a quarter of the four that are searched: 68 % within it, a little more when truncated.
    within = sum(abs(math.log10(value) + 3) < 1 for value in drawn) / len(drawn)
    assert within == pytest.approx(0.6827 / 0.9545, abs=0.04)
    assert all(domain.problem(value) is None for value in drawn)


def test_points_are_values_of_the_domain() -> None:
    domains = {
        "erasing": FloatDomain.model_validate({"type": "float", "low": 0, "high": 0.9, "step": 0.3, "prior": 0.3}),
        "batch_size": IntDomain.model_validate({"type": "int", "low": 16, "high": 64, "step": 16, "prior": 64}),
        "pretrained": CategoricalDomain.model_validate({"type": "categorical", "values": [1, True], "prior": True}),
    }
    points = prior_points(domains, trials=300, seed=1)
    assert points[0] == {"erasing": 0.3, "batch_size": 64, "pretrained": True}
    assert {point["erasing"] for point in points if "erasing" in point} == {0.0, 0.3, 0.6, 0.9}
    assert {point["batch_size"] for point in points if "batch_size" in point} == {16, 32, 48, 64}
    assert all(point["pretrained"] is True for point in points if "pretrained" in point)
    assert points == prior_points(domains, trials=300, seed=1)
    assert points != prior_points(domains, trials=300, seed=2)


def test_without_priors_nothing_is_added(tmp_path: Path) -> None:
    config = search_of(tmp_path, space="{lr: {type: float, low: 0.1, high: 1}}", start_from="[{lr: 0.2}]")
    assert config.starting_points == ({"lr": 0.2},)


def test_the_study_proposes_recipes_then_priors(tmp_path: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    lr = "{type: float, low: 1e-5, high: 0.1, log: true, prior: {value: 1e-3, confidence: high}}"
    momentum = "{type: float, low: 0.0, high: 0.99, prior: 0.9}"
    config = search_of(
        tmp_path,
        space=f"{{lr: {lr}, momentum: {momentum}, optimizer: {{type: categorical, values: [sgd, adamw]}}}}",
        start_from="[{lr: 0.05, optimizer: adamw}]",
    )
    space = config.search_space
    store = StudyStore(RunPaths(tmp_path).study, name="x", metric="val_top1", sampler=config.sampler, space=space)
    store.begin(config.starting_points, space)
    drawn = [space.suggest(store.study.ask()) for _ in range(9)]
    assert drawn[0] == {"lr": 0.05, "optimizer": "adamw"}
    assert drawn[1]["lr"] == 1e-3
    assert all(params["momentum"] == 0.9 for params in drawn[1:2] if params["optimizer"] == "sgd")
    assert all(space.contains(params) is None for params in drawn)  # momentum is left out where it does not exist
    assert load_search(write(tmp_path, to_yaml(config))) == config


@pytest.mark.parametrize(
    ("prior", "sentence"),
    [
        ("5", "space.lr.prior.value: must lie from 0.1 to 1, found 5; write a value of the domain"),
        ("{value: 0.5, confidence: sure}", "space.lr.prior.confidence: must be low, medium or high, found 'sure'"),
        ("{confidence: low}", "space.lr.prior.value: is missing"),
        ("[0.5]", "space.lr.prior.value: must be one finite value, found a list"),
    ],
)
def test_refused(tmp_path: Path, prior: str, sentence: str) -> None:
    path = space_file(tmp_path, space=f"{{lr: {{type: float, low: 0.1, high: 1, prior: {prior}}}}}")
    (line,) = refusal(path)
    assert line.startswith(f"{path}:1: {sentence}")
