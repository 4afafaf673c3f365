"""What is valid and yet probably not meant is said in words that name the place and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.lint import lint
from tests.search.space_files import search_of

LR = "{type: float, low: 0.001, high: 0.1, log: true}"

WARNED = [
    (
        {"scheduler": "{max_epochs: 81, reduction_factor: 3}", "budget": "{trials: 20}"},
        "scheduler: fewer than one of 20 trials is expected at the rung of 27 epochs, found 0.74 with reduction_"
        "factor 3; set budget.trials to 27 or more",
    ),
    (
        {"scheduler": "{max_epochs: 5, grace_period: 5}"},
        "scheduler.grace_period: no trial is ever stopped early, found 5 of 5 epochs; lower it, or write name: none",
    ),
    (
        {"augmentations": "{mine: [{Affine: {shear: {type: int, low: 0, high: 9}}}]}"},
        "augmentations.mine: no value of space.augment names it, so that augmentations.mine.Affine.shear is not sea",
    ),
    (
        {"space": "{lr: {type: float, low: 1e-12, high: 1, log: true}}"},
        "space.lr.low: the range spans 12 powers of ten, found 1e-12 to 1; raise low",
    ),
    (
        {"space": "{lr: {type: int, low: 1, high: 9}}", "budget": "{trials: 30}"},
        "budget.trials: the search ends after all 9 combinations, found 30;",
    ),
    (
        {"sampler": "{startup_trials: 10}", "budget": "{trials: 10}"},
        "sampler.startup_trials: curve_gp never begins to learn, found 10 random trials of 10; lower it to 2, or",
    ),
    (
        {
            "space": "{batch_size: {type: int, low: 1, high: 1000}, lr: {type: float, low: 0.1, high: 1, "
            "when: {batch_size: {above: 995}}}}"
        },
        "space.lr: few trials have it, found ",
    ),
    (
        {"space": "{batch_size: {type: int, low: 1, high: 60000}, lr: 0.1}", "forbid": "[{batch_size: 77}]"},
        "forbid.0: met by none of 1000 trials drawn at random, found batch_size is 77; check its values, or remove it",
    ),
    (
        {"space": "{dropout: {type: float, low: 0, high: 0.9}}", "forbid": "[{dropout: {above: 0.05}}]"},
        "forbid: most trials are forbidden, found 9",
    ),
    (
        {"space": "{lr: {type: float, low: 0.1, high: 1, prior: 0.2}}", "sampler": "{startup_trials: 0}"},
        "sampler.startup_trials: only the priors themselves are tried, none near them, found 0; set",
    ),
]


@pytest.mark.parametrize(("sections", "sentence"), WARNED, ids=lambda value: str(value)[:40])
def test_warned(tmp_path: Path, sections: dict[str, str], sentence: str) -> None:
    quiet = {"space": f"{{lr: {LR}}}", "sampler": "{startup_trials: 2}"}
    told = lint(search_of(tmp_path, **{**quiet, **sections}))
    assert len(told) == 1
    assert told[0].startswith(sentence)


def test_nothing_is_said_where_nothing_is_wrong(tmp_path: Path) -> None:
    scheduler = "{max_epochs: 27, reduction_factor: 3}"  # rungs at 1, 3 and 9 epochs
    space = f"{{lr: {LR}}}"
    assert lint(search_of(tmp_path, space=space, scheduler=scheduler, budget="{trials: 11}")) == []
    assert lint(search_of(tmp_path, space=space, scheduler=scheduler, budget="{time: 1h}")) == []
    assert lint(search_of(tmp_path, space=space, scheduler="{max_epochs: 99, name: none}", budget="{trials: 11}")) == []
