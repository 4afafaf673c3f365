"""A learning rate is searched for one batch size and trained at another."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.config import load_search, to_yaml
from tests.search.space_files import refusal, search_of, space_file, write

SIZES = "{type: categorical, values: [64, 256, 1024]}"


def _lr(scaled_by: str, *, high: str = "0.1") -> str:
    return f"{{type: float, low: 0.001, high: {high}, log: true, scaled_by: {scaled_by}}}"


@pytest.mark.parametrize(
    ("scaled_by", "batch_size", "lr"),
    [
        ("batch_size", 64, 0.0025),
        ("batch_size", 256, 0.01),
        ("batch_size", 1024, 0.04),
        ("{parameter: batch_size, reference: 64}", 1024, 0.16),
        ("{parameter: batch_size, reference: 64, rule: sqrt}", 1024, 0.04),
    ],
)
def test_the_trial_gets_the_scaled_value(tmp_path: Path, scaled_by: str, batch_size: int, lr: float) -> None:
    config = search_of(tmp_path, space=f"{{lr: {_lr(scaled_by)}, batch_size: {SIZES}}}")
    params = {"lr": 0.01, "batch_size": batch_size}
    assert config.trial_config(params).lr == pytest.approx(lr, rel=1e-12)
    assert config.trial_fields(params) == {"lr": config.trial_config(params).lr, "batch_size": batch_size}
    assert config.search_space.contains(params) is None  # the searched value is the unscaled one
    assert load_search(write(tmp_path, to_yaml(config))) == config


def test_by_fixed_values_and_defaults(tmp_path: Path) -> None:
    fixed = search_of(tmp_path, space=f"{{lr: {_lr('batch_size')}, batch_size: 128}}")
    assert fixed.trial_config({"lr": 0.01}).lr == 0.005
    default = search_of(tmp_path, space=f"{{lr: {_lr('batch_size')}}}")
    assert default.trial_config({"lr": 0.01}).lr == 0.0025  # batches of 64
    assert default.trial_config({}).lr == 1e-3  # a default is nobody's searched value


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (
            f"{{lr: {_lr('batch_size', high='9')}, batch_size: {SIZES}}}",
            "space.lr.scaled_by: leaves the range of lr: it must be at most 10, found 9 with batch_size 1024 b",
        ),
        (f"{{lr: {_lr('arch')}}}", "space.lr.scaled_by: must name another parameter that is a number, found 'arch'"),
        (f"{{lr: {_lr('lr')}}}", "space.lr.scaled_by: must name another parameter that is a number, found 'lr'"),
        (f"{{lr: {_lr('bach_size')}}}", "space.lr.scaled_by: unknown parameter, found 'bach_size'; did you mean batch"),
        (f"{{lr: {_lr('{parameter: batch_size, rule: cubic}')}}}", "space.lr.scaled_by.rule: must be linear or sqrt"),
        (f"{{lr: {_lr('{parameter: batch_size, reference: 0}')}}}", "space.lr.scaled_by.reference: must be above 0"),
        (
            "{batch_size: {type: int, low: 1, high: 9, scaled_by: warmup_epochs}}",
            "space.batch_size.scaled_by: needs a parameter that takes any number, found batch_size; remove it",
        ),
    ],
)
def test_refused(tmp_path: Path, space: str, sentence: str) -> None:
    path = space_file(tmp_path, space=space)
    (line,) = refusal(path)
    assert line.startswith(f"{path}:1: {sentence}")
