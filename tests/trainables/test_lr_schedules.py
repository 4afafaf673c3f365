"""Learning-rate schedules: known values, and the same answer whether or not training was interrupted."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR, StepLR

from trainables.config import DataConfig, TrialConfig
from trainables.lr_schedules import lr_factor


def config(**changes: Any) -> TrialConfig:
    return TrialConfig.model_validate({"data": DataConfig(name="digits"), "max_epochs": 10, **changes})


def top1(*values: float) -> list[dict[str, float]]:
    return [{"val_top1": value} for value in values]


def optimizer() -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step", "plateau"])
def test_warm_up_is_linear(schedule: str) -> None:
    trial = config(lr_schedule=schedule, warmup_epochs=2)
    assert [lr_factor(epoch, trial) for epoch in (0, 0.5, 1, 2)] == [0, 0.25, 0.5, 1]


def test_cosine_and_constant_are_what_they_were() -> None:
    cosine = config(lr_schedule="cosine", warmup_epochs=2)
    for epoch in (2.0, 3.7, 6.0, 9.99, 10.0):
        assert lr_factor(epoch, cosine) == 0.5 * (1.0 + math.cos(math.pi * min((epoch - 2.0) / 8.0, 1.0)))
    assert {lr_factor(epoch, config(lr_schedule="constant")) for epoch in (0, 5, 10)} == {1.0}


def test_step_is_torch_s_counted_from_the_end_of_the_warm_up() -> None:
    trial = config(lr_schedule="step", step_epochs=3, lr_drop=0.5, warmup_epochs=1)
    moving = optimizer()
    reference = StepLR(moving, step_size=3, gamma=0.5)
    for epoch in range(1, 10):
        assert lr_factor(epoch + 0.5, trial) == pytest.approx(reference.get_last_lr()[0])
        moving.step()
        reference.step()


def test_one_cycle_is_torch_s() -> None:
    trial = config(lr_schedule="one_cycle", max_epochs=20)
    moving = optimizer()
    # torch's last step is the end itself, so 200 steps of a tenth of an epoch are 201 values.
    reference = OneCycleLR(moving, max_lr=1.0, total_steps=201, pct_start=61 / 201, final_div_factor=1e12)
    for step in range(201):
        assert lr_factor(step / 10, trial) == pytest.approx(reference.get_last_lr()[0], abs=1e-9)
        moving.step()
        if step < 200:
            reference.step()


def test_one_cycle_replaces_the_warm_up() -> None:
    plain, warmed = config(lr_schedule="one_cycle"), config(lr_schedule="one_cycle", warmup_epochs=5)
    factors = [lr_factor(epoch / 4, plain) for epoch in range(41)]
    assert factors == [lr_factor(epoch / 4, warmed) for epoch in range(41)]
    assert (factors[0], factors[12], factors[-1]) == (pytest.approx(1 / 25), 1.0, 0.0)
    assert all(before < after for before, after in pairwise(factors[:13]))
    assert all(before > after for before, after in pairwise(factors[12:]))


def test_plateau_drops_after_epochs_without_a_better_metric() -> None:
    trial = config(lr_schedule="plateau", plateau_patience=2, lr_drop=0.1)
    history = top1(0.5, 0.6, 0.6, 0.59, 0.58, 0.61, 0.60, math.nan, 0.70)
    drops = [round(-math.log10(lr_factor(epoch + 0.5, trial, history[:epoch]))) for epoch in range(10)]
    #           best: .5  .6          drop          .61            drop
    assert drops == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]


def test_plateau_drops_again_and_again() -> None:
    trial = config(lr_schedule="plateau", plateau_patience=2, lr_drop=0.1)
    assert lr_factor(5, trial, top1(0.5, 0.4, 0.4, 0.4, 0.4)) == pytest.approx(0.01)


def test_plateau_follows_the_direction_of_the_metric() -> None:
    trial = config(lr_schedule="plateau", plateau_patience=1, lr_drop=0.5, metric="val_loss")
    falling, rising = [{"val_loss": 2.0}, {"val_loss": 1.0}], [{"val_loss": 1.0}, {"val_loss": 2.0}]
    assert lr_factor(2.5, trial, falling) == 1.0
    assert lr_factor(2.5, trial, rising) == 0.5


def test_plateau_has_patience_while_the_rate_rises() -> None:
    trial = config(lr_schedule="plateau", plateau_patience=2, lr_drop=0.1, warmup_epochs=3)
    assert lr_factor(4.5, trial, top1(0.5, 0.4, 0.4, 0.4)) == 1.0
    assert lr_factor(5.5, trial, top1(0.5, 0.4, 0.4, 0.4, 0.4)) == pytest.approx(0.1)


def test_plateau_does_not_look_ahead() -> None:
    trial = config(lr_schedule="plateau", plateau_patience=1, lr_drop=0.1)
    history = top1(0.5, 0.4, 0.3, 0.6, 0.2)
    for epoch in range(6):
        assert lr_factor(epoch + 0.9, trial, history) == lr_factor(epoch + 0.9, trial, history[:epoch])
