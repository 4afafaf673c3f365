"""`-o key=value` changes one value, and the rest of the file follows what it makes meaningless."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search.config import load_search
from search.domains import FloatDomain
from search.matching import Between
from tests.search.space_files import GOOD, refusal, space_file, write


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("space.lr=0.01", lambda config: config.space["lr"], 0.01),
        ("space.lr.low=1E-3", lambda config: config.space["lr"].low, 0.001),
        ("space.arch.values.0=resnet34", lambda config: config.space["arch"].values, ("resnet34", "resnet18")),
        ("space.dropout={type: float, low: 0, high: .5}", lambda config: config.space["dropout"].high, 0.5),
        (
            "scheduler={max_epochs: 9, name: none}",
            lambda config: (config.scheduler.max_epochs, config.scheduler.name),
            (9, "none"),
        ),
        ("task.split.val=0.1", lambda config: config.task.split.val, 0.1),
        ("resources.max_concurrent_trials=2", lambda config: config.resources.max_concurrent_trials, 2),
        ("budget.time=2h", lambda config: config.budget.time_s, 7200),
        ("start_from=[]", lambda config: config.start_from, ()),
        ("name=a=b", None, "-o name=a=b: name: must be of a-z, 0-9, - and _ only, found 'a=b'; write a-b"),
        ("space.lr.low=0", None, "-o space.lr.low=0: space.lr.low: log scale needs low > 0, found 0; set low: 0.00001"),
        (
            "scheduler.max_epoch=3",
            None,
            "-o scheduler.max_epoch=3: scheduler.max_epoch: unknown key, found 'max_epoch'; did",
        ),
        (
            "shceduler.max_epochs=3",
            None,
            "-o shceduler.max_epochs=3: shceduler: unknown key, found 'shceduler'; did you mean s",
        ),
        (
            "space.arch.values.9=x",
            None,
            "-o space.arch.values.9=x: space.arch.values is a list, found '9'; write an index",
        ),
        (
            "space.batch_size.low=3",
            None,
            "space.batch_size is no mapping, found 64; replace it: -o 'space.batch_size={low",
        ),
        ("max_epochs", None, "-o max_epochs: must be key=value, found 'max_epochs'; write for instance -o sched"),
        ("a..b=1", None, "-o a..b=1: must be key=value"),
        ("space.lr=[1", None, "-o space.lr=[1: not valid YAML: a list or mapping that is not closed"),
    ],
    ids=lambda value: "value" if callable(value) else str(value)[:40],
)
def test_overrides(tmp_path: Path, override: str, read: Any, value: Any) -> None:
    path = write(tmp_path, GOOD)
    if read is None:
        (line,) = refusal(path, override)
        assert value in line
    else:
        assert read(load_search(path, overrides=[override])) == value


def test_overridden_domains_release_the_starting_points(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    assert load_search(path, overrides=["space.lr=0.01"]).start_from == ({"arch": "resnet18"},)
    assert load_search(path, overrides=["space.lr.low=1e-3"]).start_from == ({"lr": 1e-3, "arch": "resnet18"},)
    assert load_search(path, overrides=["space.lr=0.01", "space.arch=small_cnn"]).start_from == ()
    # What the person writes in the same command is theirs to make consistent.
    (line,) = refusal(path, "space.lr=0.01", "start_from=[{lr: 0.1}]")
    assert "-o start_from=[{lr: 0.1}]: start_from.0.lr: is fixed to 0.01 by the space, found 0.1" in line


def test_overrides_apply_in_order_and_spare_aliases(tmp_path: Path) -> None:
    text = GOOD.replace("lr: {type", "weight_decay: &range {type: float, low: 1e-4, high: 1e-2}\n  lr: *range\n#", 1)
    config = load_search(write(tmp_path, text), overrides=["space.lr.high=5", "space.lr.high=1"])
    assert config.space["lr"] == FloatDomain(type="float", low=1e-4, high=1)
    assert config.space["weight_decay"] == FloatDomain(type="float", low=1e-4, high=1e-2)


CONDITIONAL = {
    "space": "{optimizer: {type: categorical, values: [sgd, rmsprop, adamw]}, momentum: {type: float, low: 0, "
    "high: 0.9}, dropout: {type: float, low: 0, high: 0.5, when: {optimizer: [sgd, rmsprop]}}, augment: mine}",
    "augmentations": "{mine: [{Affine: {rotate: {type: int, low: 0, high: 30}}}]}",
    "forbid": "[{optimizer: [sgd, adamw], dropout: {above: 0.4}}, {optimizer: sgd, momentum: {below: 0.1}}]",
    "start_from": "[{optimizer: sgd, momentum: 0.5}, {augmentations.mine.Affine.rotate: 3}]",
}


def test_what_an_override_makes_meaningless_is_left_out(tmp_path: Path) -> None:
    path = space_file(tmp_path, **CONDITIONAL)
    config = load_search(path, overrides=["space.optimizer=adamw"])
    assert list(config.space) == ["optimizer", "augment"]
    assert config.forbid == ()  # the first names dropout, which no trial has now
    assert config.start_from == ({"augmentations.mine.Affine.rotate": 3},)

    config = load_search(path, overrides=["space.optimizer.values=[rmsprop, adamw]", "space.augment=none"])
    assert config.space["dropout"].when == {"optimizer": ("rmsprop",)}
    assert config.forbid == ({"optimizer": ("adamw",), "dropout": Between(above=0.4)},)
    assert config.start_from == ({"momentum": 0.5},)
    assert "augmentations.mine.Affine.rotate" not in config.search_space.searched


def test_what_is_overridden_itself_must_fit(tmp_path: Path) -> None:
    path = space_file(tmp_path, **CONDITIONAL)
    (line,) = refusal(path, "space.optimizer=adamw", "space.momentum=0.5")
    assert line.startswith("-o space.momentum=0.5: space.momentum: has an effect only where optimizer is sgd")
    assert line.endswith(", found optimizer: adamw; remove it")
