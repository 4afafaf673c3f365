"""A parameter is part of a trial only where it matters; suggesting, counting, listing and checking agree on where."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import optuna
import pytest

from search.config import load_search, to_yaml
from search.draws import UniformDraw
from search.parameters import parse_space
from search.space import Space
from tests.search.space_files import refusal, search_of, space_file, write

# Children before parents, implicit and explicit conditions, two levels.
NESTED: dict[str, Any] = {
    "crop_scale": {"type": "categorical", "values": [0.3, 0.6]},
    "crop": {"type": "categorical", "values": ["pad", "resized"], "when": {"arch": "small_cnn"}},
    "dropout": {"type": "categorical", "values": [0.0, 0.1, 0.2], "when": {"momentum": {"above": 0.5}}},
    "momentum": {"type": "float", "low": 0.0, "high": 0.9, "step": 0.3},
    "augment": {"type": "categorical", "values": ["none", "basic"]},
    "optimizer": {"type": "categorical", "values": ["sgd", "adamw", "rmsprop"]},
    "arch": {"type": "categorical", "values": ["small_cnn", "resnet18"]},
    "batch_size": {"type": "int", "low": 16, "high": 48, "step": 16},
}


def nested() -> Space:
    params, problems = parse_space(NESTED)
    assert not problems
    return Space(params)


def expected_names(params: dict[str, Any]) -> set[str]:
    """Written out by hand, as the meaning of NESTED."""
    names = {"augment", "optimizer", "arch", "batch_size"}
    if params["optimizer"] in ("sgd", "rmsprop"):
        names.add("momentum")
        if params["momentum"] > 0.5:
            names.add("dropout")
    if params["augment"] == "basic" and params["arch"] == "small_cnn":
        names.add("crop")
        if params["crop"] == "resized":
            names.add("crop_scale")
    return names


def test_parents_are_decided_first_and_the_rest_stays_in_order() -> None:
    order = nested().searched
    assert order == ("augment", "arch", "crop", "crop_scale", "optimizer", "momentum", "dropout", "batch_size")


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_trials_have_exactly_what_matters(sampler: str) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = nested()
    seed = {"random": optuna.samplers.RandomSampler(seed=0), "tpe": optuna.samplers.TPESampler(seed=0)}
    study = optuna.create_study(sampler=seed[sampler])
    seen = set()
    for _ in range(60):
        trial = study.ask()
        params = space.suggest(trial)
        assert set(params) == set(trial.params) == expected_names(params)
        assert space.contains(params) is None
        seen.add(frozenset(params))
        study.tell(trial, params["batch_size"])
    assert len(seen) >= 6


def test_counted_listed_and_drawn_alike() -> None:
    space = nested()
    everything = list(space.combinations())
    keys = {tuple(sorted(params.items(), key=str)) for params in everything}
    # optimizer and momentum: adamw, and twice momentum 0, 0.3 without dropout, 0.6, 0.9 with three; then the crops.
    assert space.num_combinations == len(everything) == len(keys) == (1 + 2 * (2 + 2 * 3)) * (1 + 1 + 1 + 3) * 3
    assert all(set(params) == expected_names(params) and space.contains(params) is None for params in everything)
    rng = random.Random(0)
    assert all(tuple(sorted(space.draw(rng).items(), key=str)) in keys for _ in range(200))


@pytest.mark.parametrize(
    ("params", "partial", "problem"),
    [
        ({"optimizer": "adamw", "momentum": 0.3}, True, "momentum: has an effect only where optimizer is sgd"),
        ({"optimizer": "adamw", "momentum": 0.3}, True, "found optimizer: adamw; remove it"),
        ({"momentum": 0.3}, True, None),  # the optimizer is still open
        ({"dropout": 0.1, "momentum": 0.3}, True, "dropout: has an effect only where momentum is above 0.5, found mom"),
        ({"dropout": 0.1, "optimizer": "adamw"}, True, "dropout: has an effect only where momentum is above 0.5, fou"),
        ({"dropout": 0.1}, True, None),
        ({"crop": "pad", "augment": "none"}, True, "crop: has an effect only where"),
        ({"arch": "resnet18", "augment": "none", "optimizer": "sgd", "batch_size": 16}, False, "momentum: is missing"),
        ({"arch": "resnet18", "augment": "none", "optimizer": "adamw", "batch_size": 16}, False, None),
    ],
)
def test_contains(params: dict[str, Any], partial: bool, problem: str | None) -> None:
    text = nested().contains(params, partial=partial)
    assert text is None if problem is None else problem in str(text)


def test_numbers_as_parents_decide_too(tmp_path: Path) -> None:
    alpha, prob = "{type: float, low: 0, high: 1, step: 0.5}", "{type: categorical, values: [0.5, 1.0]}"
    space = search_of(tmp_path, space=f"{{mixup_alpha: {alpha}, mix_prob: {prob}}}").search_space
    assert space.num_combinations == 1 + 2 * 2
    assert set(next(space.combinations())) == {"mixup_alpha"}


def test_describe_names_the_condition(tmp_path: Path) -> None:
    config = search_of(
        tmp_path,
        space="{optimizer: {type: categorical, values: [sgd, adamw]}, lr: {type: float, low: 0.1, high: 1, "
        "when: {optimizer: sgd, batch_size: {above: 16, below: 64}}}, batch_size: {type: int, low: 8, high: 99}, "
        "loss: focal, focal_gamma: {type: int, low: 1, high: 3}}",
    )
    rows = dict(config.search_space.describe())
    assert rows["lr"] == "0.1 … 1; only where optimizer is sgd and batch_size is above 16 and below 64"
    assert rows["focal_gamma"] == "1 … 3"  # the loss is focal in every trial
    assert load_search(write(tmp_path, to_yaml(config))) == config


REFUSED = [
    (
        "{drop_path: {type: float, low: 0, high: 0.5}, arch: {type: categorical, values: [small_cnn, "
        "torchvision/vgg11]}}",
        "space.drop_path: has an effect only where arch has residual blocks that can be skipped, "
        "found arch: small_cnn, torchvision/vgg11; remove it",
    ),
    ("{momentum: 0.9}", "space.momentum: has an effect only where optimizer is sgd"),
    ("{momentum: 0.9}", "found optimizer: adamw (its default); remove it"),
    (
        "{augment: basic, crop: pad, crop_scale: {type: float, low: 0.1, high: 1}}",
        "space.crop_scale: has an effect only where crop is resized, found augment: basic, crop: pad; remove it",
    ),
    (
        "{optimizer: {type: categorical, values: [sgd, adamw]}, momentum: {type: float, low: 0, high: 0.9, "
        "when: {optimizer: adamw}}}",
        "and its `when` that asks for optimizer is adamw, found optimizer: sgd, adamw; change `when`, or remove the",
    ),
    (
        "{lr: {type: float, low: 0.1, high: 1, when: {optimzer: sgd}}, optimizer: sgd}",
        "space.lr.when.optimzer: unknown parameter, found 'optimzer'; did you mean optimizer?",
    ),
    (
        "{lr: {type: float, low: 0.1, high: 1, when: {optimizer: sgd}}}",
        "space.lr.when.optimizer: is not in the space, where it has its default adamw, found 'optimizer'; add op",
    ),
    (
        "{lr: {type: float, low: 0.1, high: 1, when: {optimizer: [sgd, lion]}}, optimizer: {type: categorical, "
        "values: [sgd, adamw]}}",
        "space.lr.when.optimizer: must be one of sgd, adamw, found 'lion'; write one of these",
    ),
    (
        "{lr: {type: float, low: 0.1, high: 1, when: {optimizer: adamw}}, optimizer: sgd}",
        "space.lr.when.optimizer: is fixed to sgd by the space, found 'adamw'",
    ),
    (
        "{lr: {type: float, low: 0.1, high: 1, when: {batch_size: {above: 64}}}, batch_size: {type: int, low: 8, "
        "high: 64}}",
        "space.lr.when.batch_size: holds for no value of batch_size, found batch_size: 8 … 64; move the bound",
    ),
    (
        "{lr: {type: float, low: 0.1, high: 1, when: {batch_size: {above: 64, below: 8}}}, batch_size: 64}",
        "space.lr.when.batch_size.above: must be below `below`, found 64 and 8; exchange them",
    ),
    ("{lr: {type: float, low: 0.1, high: 1, when: {batch_size: []}}, batch_size: 64}", "must hold at least 1 value"),
    ("{lr: {type: float, low: 0.1, high: 1, when: {}}}", "space.lr.when: must map parameters to values, found a map"),
    (
        "{lr: {type: float, low: 0.1, high: 1, when: {dropout: 0}}, dropout: {type: categorical, values: [0, 0.1], "
        "when: {lr: 0.5}}}",
        "space.lr.when: depends on itself, found lr -> dropout -> lr; remove one `when` of the circle",
    ),
    ("{lr: {type: float, low: 0.1, high: 1, when: {lr: 0.5}}}", "space.lr.when.lr: depends on itself, found lr; name"),
]


@pytest.mark.parametrize(("space", "sentence"), REFUSED, ids=lambda text: text[:40])
def test_refused(tmp_path: Path, space: str, sentence: str) -> None:
    path = space_file(tmp_path, space=space)
    told = refusal(path)
    assert any(line.startswith(f"{path}:1: ") and sentence in line for line in told), told


def test_starting_points_may_not_set_what_has_no_effect(tmp_path: Path) -> None:
    space = "{optimizer: {type: categorical, values: [sgd, adamw]}, momentum: {type: float, low: 0, high: 0.9}}"
    path = space_file(tmp_path, space=space, start_from="[{momentum: 0.5}, {optimizer: adamw, momentum: 0.5}]")
    (line,) = refusal(path)
    assert line.startswith(f"{path}:5: start_from.1.momentum: has an effect only where optimizer is sgd")


def test_counting_gives_up_where_too_much_decides() -> None:
    """No answer is better than one after minutes: 12 parameters of 9 values decide about one other together."""
    names = ["hflip", "vflip", "erasing", "dropout", "mix_prob", "color_jitter", "label_smoothing", "ema_decay"]
    axis = {"type": "float", "low": 0, "high": 0.8, "step": 0.1}
    raw: dict[str, Any] = {name: dict(axis) for name in names} | {"augment": "basic", "mixup_alpha": 0.1}
    raw["weight_decay"] = {"type": "categorical", "values": [0.1, 0.2], "when": dict.fromkeys(names, 0.1)}
    params, problems = parse_space(raw)
    assert not problems
    space = Space(params)
    assert space.num_combinations is None
    assert len(list(itertools.islice(space.combinations(), 100))) == 100


def test_draws_stay_in_their_domains() -> None:
    draw = UniformDraw(random.Random(0))
    values = [draw.suggest_int("", 1, 8, log=True) for _ in range(500)]
    assert set(values) == set(range(1, 9))
    assert values.count(1) > 2 * values.count(8)
    assert {draw.suggest_int("", 16, 48, step=16) for _ in range(50)} == {16, 32, 48}
    logs = [draw.suggest_float("", 1e-4, 1e-1, log=True) for _ in range(500)]
    assert 1e-4 <= min(logs) < 1e-3 < sorted(logs)[250] < 1e-2 < max(logs) <= 1e-1
