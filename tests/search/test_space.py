"""Domains refuse bad bounds, and a space offers Optuna exactly its values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
import pytest
from pydantic import ValidationError

from search.domains import CategoricalDomain, FloatDomain, IntDomain, Param
from search.space import Space

PARAMS: dict[str, Param] = {
    "arch": CategoricalDomain(type="categorical", values=("small_cnn", "resnet18")),
    "lr": FloatDomain(type="float", low=1e-4, high=0.1, log=True),
    "dropout": FloatDomain(type="float", low=0.1, high=0.5, step=0.1),
    "batch_size": IntDomain(type="int", low=16, high=64, step=16),
    "randaugment_num_ops": IntDomain(type="int", low=1, high=8, log=True),
    "pretrained": CategoricalDomain(type="categorical", values=(True, False)),
    "grad_clip_norm": CategoricalDomain(type="categorical", values=(None, 1.0)),
    "randaugment_magnitude": 9,
    "augment": "randaugment",  # decided before its parameters, although written after them
}


def _finite() -> Space:
    return Space({name: PARAMS[name] for name in ("arch", "dropout", "randaugment_magnitude", "pretrained")})


@pytest.mark.parametrize("sampler", [optuna.samplers.RandomSampler(seed=0), optuna.samplers.TPESampler(seed=0)])
def test_suggested_trials_lie_in_the_space(sampler: optuna.samplers.BaseSampler) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = Space(PARAMS)
    study = optuna.create_study(sampler=sampler)
    for _ in range(30):
        trial = study.ask()
        params = space.suggest(trial)
        assert set(params) == set(PARAMS)
        assert params["randaugment_magnitude"] == 9
        assert params["dropout"] in (0.1, 0.2, 0.3, 0.4, 0.5)  # exactly: not 0.30000000000000004
        assert space.contains(params) is None
        study.tell(trial, params["lr"])


def test_searched_and_fixed() -> None:
    space = Space(PARAMS)
    assert space.searched == tuple(name for name in PARAMS if name not in ("randaugment_magnitude", "augment"))
    assert space.fixed == {"augment": "randaugment", "randaugment_magnitude": 9}


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"lr": 1.0}, "lr: must lie from 0.0001 to 0.1, found 1.0"),
        ({"lr": "big"}, "lr: must be a number from 0.0001 to 0.1, found 'big'"),
        ({"lr": True}, "lr: must be a number from 0.0001 to 0.1, found true"),
        ({"lr": float("nan")}, "lr: must be a number from"),
        ({"dropout": 0.25}, "dropout: must be a multiple of step 0.1 above 0.1, found 0.25; write 0.2"),
        ({"batch_size": 40}, "batch_size: must be a whole number of the domain 16 … 64, step 16, found 40; write"),
        ({"randaugment_num_ops": 2.4}, "found 2.4; write 2"),
        ({"arch": "vit"}, "arch: must be one of small_cnn, resnet18, found 'vit'"),
        ({"pretrained": 1}, "pretrained: must be one of true, false, found 1"),
        ({"randaugment_magnitude": 5}, "randaugment_magnitude: is fixed to 9 by the space, found 5"),
        ({"drpout": 0.1}, "drpout: unknown key, found 'drpout'; did you mean dropout?"),
    ],
)
def test_outside(params: Mapping[str, Any], problem: str) -> None:
    assert problem in str(Space(PARAMS).contains(params, partial=True))


def test_missing_parameters_are_a_problem_unless_partial() -> None:
    assert _finite().contains({"arch": "resnet18"}, partial=True) is None
    assert "dropout: is missing" in str(_finite().contains({"arch": "resnet18"}))


def test_combinations() -> None:
    combinations = list(_finite().combinations())
    assert _finite().num_combinations == len(combinations) == 20
    assert combinations[0] == {"arch": "small_cnn", "dropout": 0.1, "randaugment_magnitude": 9, "pretrained": True}
    assert combinations[-1] == {"arch": "resnet18", "dropout": 0.5, "randaugment_magnitude": 9, "pretrained": False}
    assert all(_finite().contains(params) is None for params in combinations)
    assert [params["dropout"] for params in combinations[:10:2]] == [0.1, 0.2, 0.3, 0.4, 0.5]


def test_continuous_spaces_have_no_combinations() -> None:
    assert Space(PARAMS).num_combinations is None
    with pytest.raises(ValueError, match="found lr continuous; give each a step"):
        next(Space(PARAMS).combinations())


def test_all_fixed_is_one_combination() -> None:
    assert list(Space({"lr": 0.1}).combinations()) == [{"lr": 0.1}]


def test_huge_ranges_are_counted_without_listing() -> None:
    assert Space({"batch_size": IntDomain(type="int", low=0, high=2**70)}).num_combinations == 2**70 + 1


def test_describe() -> None:
    assert dict(Space(PARAMS).describe()) == {
        "arch": "small_cnn, resnet18",
        "lr": "0.0001 … 0.1, log",
        "dropout": "0.1 … 0.5, step 0.1",
        "batch_size": "16 … 64, step 16",
        "randaugment_num_ops": "1 … 8, log",
        "pretrained": "true, false",
        "grad_clip_norm": "null, 1.0",
        "randaugment_magnitude": "9 (fixed)",
        "augment": "randaugment (fixed)",
    }


@pytest.mark.parametrize(
    ("model", "fields", "text"),
    [
        (
            FloatDomain,
            {"low": 0, "high": 1, "log": True},
            "log scale needs low > 0, found 0; set low: 0.00001 or log: false",
        ),
        (IntDomain, {"low": 0, "high": 9, "log": True}, "log scale needs low > 0, found 0; set low: 1 or log: false"),
        (FloatDomain, {"low": 2, "high": 1}, "must be below high, found low 2.0 and high 1.0; exchange them"),
        (IntDomain, {"low": 2, "high": 2}, "write the one value instead of a domain"),
        (FloatDomain, {"low": 1, "high": 2, "log": True, "step": 1}, "cannot go with log: true, found step 1.0"),
        (FloatDomain, {"low": 0, "high": 0.5, "step": 0.2}, "found step 0.2 from 0.0 to 0.5; set high: 0.4 or 0.6"),
        (IntDomain, {"low": 0, "high": 5, "step": 10}, "set high: 10, or another step"),
        (IntDomain, {"low": 0, "high": 5, "step": -1}, "must be above 0, found -1; write a step such as 1"),
        (FloatDomain, {"low": 0, "high": 1, "step": 1e-300}, "is too small for the range"),
        (CategoricalDomain, {"values": []}, "at least 1 item"),
        (CategoricalDomain, {"values": ["a", "a"]}, "written twice, found 'a' again; remove one"),
        (CategoricalDomain, {"values": [[1]]}, "must be one finite value, found a list"),
    ],
)
def test_bad_domains(
    model: type[FloatDomain] | type[IntDomain] | type[CategoricalDomain], fields: Any, text: str
) -> None:
    kind = {FloatDomain: "float", IntDomain: "int", CategoricalDomain: "categorical"}[model]
    with pytest.raises(ValidationError) as caught:
        model.model_validate({"type": kind, **fields})
    assert text in str(caught.value)


def test_steps_are_exact() -> None:
    assert FloatDomain(type="float", low=0, high=0.3, step=0.1).num_values == 4
    assert list(FloatDomain(type="float", low=0, high=0.3, step=0.1).grid()) == [0.0, 0.1, 0.2, 0.3]
    assert CategoricalDomain(type="categorical", values=(1, True)).num_values == 2  # 1 == True for Python only
