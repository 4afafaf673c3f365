"""How long a trial may say nothing, where nobody has said how long."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from search.hang_limit import HangLimit, Heard
from search.resources_config import ResourcesConfig
from search.schedulers import FullScheduler
from search.watchdog import Watchdog

HOUR = 3600.0


@pytest.mark.parametrize(
    ("hang_timeout", "own_epoch_s", "longest_epoch_s", "limit_s"),
    [
        ("90s", None, 0.0, 90.0),
        ("90s", 1000.0, 1000.0, 90.0),  # what a person says holds, whatever epochs take
        (None, 1.0, 1.0, HOUR / 2),
        (None, 600.0, 900.0, 12_000.0),
        (None, None, 0.0, 6 * HOUR),  # data may have to be read first, or a large network compiled
        (None, None, 2 * HOUR, 40 * HOUR),
    ],
)
def test_the_limit_follows_from_the_epochs(
    hang_timeout: str | None, own_epoch_s: float | None, longest_epoch_s: float, limit_s: float
) -> None:
    limit = HangLimit(ResourcesConfig(hang_timeout=hang_timeout))
    limit.longest_s = longest_epoch_s
    assert limit.seconds(Heard(since=0.0, longest_s=own_epoch_s)) == limit_s


def test_trials_that_take_turns_may_be_silent_for_as_long_as_that_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of trials that share a device each tells its share of the time, which is much less than a round of all."""
    watchdog = Watchdog(FullScheduler(metric="val_top1"), ResourcesConfig())
    trial: Any = SimpleNamespace(trial_id="a")
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    watchdog.on_trial_start(0, [], trial)
    for _ in range(3):
        now += HOUR
        watchdog.on_trial_result(0, [], trial, {"train_s": 30.0, "val_s": 5.0})
    assert watchdog._limit.seconds(watchdog._watched["a"].heard) == 20 * HOUR
