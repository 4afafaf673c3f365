"""How many trials may run, and when one more is proposed ahead of its turn."""

from __future__ import annotations

import pytest

from search.room import Fit, Room


@pytest.mark.parametrize(
    ("slots", "most", "running", "fit"),
    [
        (4, None, [], Fit.NOW),
        (4, None, [1, 1, 1], Fit.NOW),
        (4, None, [1, 1, 1, 1], Fit.AHEAD),  # nothing is free: it waits for the first actor that is
        (4, None, [1, 1, 1, 1, 1], Fit.NO),
        (4, 4, [1, 1, 1, 1], Fit.AHEAD),
        (4, 2, [1], Fit.NOW),
        (4, 2, [1, 1], Fit.NO),  # two slots are free, in which it would start at once
        (2, 8, [1, 1], Fit.AHEAD),
        (1, None, [1], Fit.NO),  # one at a time: the search repeats exactly
        (0, None, [], Fit.NOW),  # it waits in Ray, and an autoscaler sees it
    ],
)
def test_trials_of_one_worker(slots: int, most: int | None, running: list[int], fit: Fit) -> None:
    assert Room(lambda: slots, most=most).fit(running) is fit


@pytest.mark.parametrize(
    ("running", "size", "fit"),
    [([2], 2, Fit.NOW), ([2, 1], 1, Fit.NOW), ([2, 1], 2, Fit.NO), ([2, 2], None, Fit.NO), ([], 8, Fit.NOW)],
)
def test_trials_of_several_sizes(running: list[int], size: int | None, fit: Fit) -> None:
    assert Room(lambda: 4, sizes=(1, 2)).fit(running, size=size) is fit
