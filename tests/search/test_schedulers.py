"""Rungs and decisions of ASHA."""

from __future__ import annotations

import pytest

from search.ledger import Status, TrialRecord
from search.schedulers import AshaScheduler, rung_epochs


@pytest.mark.parametrize(
    ("grace_period", "reduction_factor", "max_epochs", "rungs"),
    [
        (1, 3, 243, [1, 3, 9, 27, 81]),  # a floored log ratio finds one fewer
        (1, 3, 244, [1, 3, 9, 27, 81, 243]),
        (2, 3, 50, [2, 6, 18]),
        (1, 2, 1, []),
        (5, 4, 5, []),
        (1, 10, 1000, [1, 10, 100]),
    ],
)
def test_rungs_are_counted_exactly(grace_period: int, reduction_factor: int, max_epochs: int, rungs: list[int]) -> None:
    found = rung_epochs(grace_period=grace_period, reduction_factor=reduction_factor, max_epochs=max_epochs)
    assert found == rungs


def asha(metric: str = "val_top1", history: tuple[TrialRecord, ...] = ()) -> AshaScheduler:
    return AshaScheduler(metric=metric, grace_period=1, reduction_factor=3, max_epochs=9, history=history)


@pytest.mark.parametrize(("metric", "sign"), [("val_top1", 1.0), ("val_loss", -1.0)])
def test_a_third_goes_on_in_either_direction(metric: str, sign: float) -> None:
    scheduler = asha(metric)
    scores = [0.5, 0.6, 0.4, 0.7, 0.55, 0.65, 0.8]
    decisions = [scheduler.goes_on(number, epoch=1, score=sign * score) for number, score in enumerate(scores)]
    # Among 1, 2, 3 the best one goes on; among 4, 5, 6 the best two; among 7 the best three.
    assert decisions == [True, True, False, True, False, True, True]


def test_between_rungs_nothing_is_stopped() -> None:
    scheduler = asha()
    scheduler.goes_on(0, epoch=1, score=0.9)
    assert scheduler.goes_on(1, epoch=2, score=0.0)


def test_of_equal_scores_the_earlier_keeps_its_place() -> None:
    scheduler = asha()
    # The fourth arrival makes room for a second one, but those that came before it are ahead.
    decisions = [scheduler.goes_on(number, epoch=1, score=0.5) for number in range(7)]
    assert decisions == [True, False, False, False, False, False, False]


def record(number: int, values: list[float], status: Status = Status.STOPPED) -> TrialRecord:
    return TrialRecord(number=number, params={}, status=status, curve=dict(enumerate(values, start=1)))


def test_rungs_survive_a_restart() -> None:
    history = (record(0, [0.5, 0.6, 0.4], Status.RUNNING), record(1, [0.8], Status.RUNNING), record(2, [0.2]))
    scheduler = asha(history=history)
    assert scheduler.rungs[1].scores == {0: 0.5, 1: 0.8, 2: 0.2}
    assert scheduler.rungs[3].scores == {0: 0.6}  # the best until then
    # Trial 0 passed epoch 1 before the restart; that trial 1 is better now does not undo it.
    assert scheduler.goes_on(0, epoch=1, score=0.5)
    # A new trial meets the old scores.
    assert not scheduler.goes_on(3, epoch=1, score=0.4)


def test_the_last_epoch_before_a_restart_is_decided_again() -> None:
    scheduler = asha(history=(record(0, [0.5], Status.RUNNING), record(1, [0.8]), record(2, [0.7])))
    assert not scheduler.goes_on(0, epoch=1, score=0.5)
    assert scheduler.rungs[1].scores == {0: 0.5, 1: 0.8, 2: 0.7}  # not counted twice
