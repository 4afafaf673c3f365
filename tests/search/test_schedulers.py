"""Which trials each scheduler lets go on: tables of curves, with decisions worked out by hand."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from search.asha import AshaScheduler
from search.config import SearchConfig
from search.curve_stopping import CurveScheduler
from search.hyperband import HyperbandScheduler, bracket_shares
from search.ledger import Lineage, Status, TrialRecord
from search.median_stopping import MedianScheduler
from search.perturbation import perturb
from search.population import PopulationScheduler
from search.promotion import PromotionScheduler
from search.rungs import rung_epochs
from search.schedulers import Continue, Decision, Exploit, FullScheduler

GO_ON, STOP, PAUSE = Decision.GO_ON, Decision.STOP, Decision.PAUSE


def record(number: int, values: list[float], status: Status = Status.STOPPED, **fields: Any) -> TrialRecord:
    score = max(values, default=None)
    curve = dict(enumerate(values, start=1))
    return TrialRecord(number=number, params={}, status=status, curve=curve, score=score, **fields)


def begin(scheduler: FullScheduler, *numbers: int) -> None:
    for number in numbers:
        scheduler.add(TrialRecord(number=number, params={"lr": float(number)}))


def judge(scheduler: FullScheduler, number: int, epoch: int, value: float) -> Decision:
    return scheduler.judge(number, epoch=epoch, value=value, score=value)


# --- asha ---


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


def asha(*history: TrialRecord, metric: str = "val_top1") -> AshaScheduler:
    scheduler = AshaScheduler(metric=metric, grace_period=1, reduction_factor=3, max_epochs=9)
    scheduler.take_up(history)
    return scheduler


@pytest.mark.parametrize(("metric", "sign"), [("val_top1", 1.0), ("val_loss", -1.0)])
def test_a_third_goes_on_in_either_direction(metric: str, sign: float) -> None:
    scheduler = asha(metric=metric)
    scores = [0.5, 0.6, 0.4, 0.7, 0.55, 0.65, 0.8]
    decisions = [judge(scheduler, number, 1, sign * score) for number, score in enumerate(scores)]
    # Among 1, 2, 3 the best one goes on; among 4, 5, 6 the best two; among 7 the best three.
    assert decisions == [GO_ON, GO_ON, STOP, GO_ON, STOP, GO_ON, GO_ON]
    assert scheduler.stopped == {2, 4}


def test_only_the_rivals_that_came_last_count() -> None:
    """Trials get better: each of the last ones is among the best third of all, but not of the last three."""
    scheduler = AshaScheduler(metric="val_top1", grace_period=1, reduction_factor=3, max_epochs=9, rivals=3)
    poor = [judge(scheduler, number, 1, 0.1) for number in range(6)]
    assert poor == [GO_ON] + [STOP] * 5
    assert [judge(scheduler, 6 + place, 1, score) for place, score in enumerate([0.8, 0.7, 0.6])] == [GO_ON, STOP, STOP]
    assert judge(scheduler, 9, 1, 0.65) is STOP  # 0.7 is among the last three
    assert judge(scheduler, 10, 1, 0.66) is GO_ON  # now it is not, nor is 0.8


def test_between_rungs_nothing_is_stopped() -> None:
    scheduler = asha()
    judge(scheduler, 0, 1, 0.9)
    assert judge(scheduler, 1, 2, 0.0) is GO_ON


def revisiting(*history: TrialRecord, **options: Any) -> AshaScheduler:
    scheduler = AshaScheduler(
        metric="val_top1", grace_period=1, reduction_factor=3, max_epochs=9, revisits=True, **options
    )
    scheduler.take_up(history)
    return scheduler


@pytest.mark.parametrize("rivals", [None, 3])
def test_a_trial_ends_between_rungs_once_others_have_overtaken_it(rivals: int | None) -> None:
    scheduler = revisiting(rivals=rivals)
    assert judge(scheduler, 0, 1, 0.2) is GO_ON  # the first always does
    assert judge(scheduler, 1, 1, 0.1) is STOP
    assert judge(scheduler, 0, 2, 0.3) is GO_ON
    assert judge(scheduler, 2, 1, 0.25) is GO_ON
    # Trial 2 reached 0.25 at the first epoch, trial 0 only 0.2, whatever it has come to by now.
    assert judge(scheduler, 0, 2, 0.3) is STOP
    assert scheduler.stopped == {0, 1}
    assert judge(scheduler, 2, 2, 0.3) is GO_ON


def test_what_was_overtaken_below_is_judged_by_the_rung_it_has_reached() -> None:
    scheduler = revisiting()
    for epoch in (1, 2, 3):
        assert judge(scheduler, 0, epoch, 0.2) is GO_ON
    assert judge(scheduler, 1, 1, 0.5) is GO_ON
    assert judge(scheduler, 0, 4, 0.2) is GO_ON  # nobody else has been at epoch 3
    assert judge(scheduler, 1, 3, 0.5) is GO_ON
    assert judge(scheduler, 0, 5, 0.2) is STOP


@pytest.mark.parametrize("rivals", [None, 4])
def test_who_ties_later_does_not_end_the_earlier(rivals: int | None) -> None:
    scheduler = revisiting(rivals=rivals)
    judge(scheduler, 0, 1, 0.5)
    assert [judge(scheduler, number, 1, 0.5) for number in range(1, 4)] == [STOP] * 3
    assert judge(scheduler, 0, 2, 0.5) is GO_ON


def test_revisits_go_on_after_a_restart() -> None:
    scheduler = revisiting(record(0, [0.5, 0.6], Status.RUNNING), record(1, [0.8], Status.RUNNING))
    # Trial 0 repeats what it had reported; its next epoch is decided by who has come.
    assert judge(scheduler, 0, 1, 0.5) is GO_ON
    assert judge(scheduler, 0, 2, 0.6) is STOP
    assert judge(scheduler, 1, 2, 0.8) is GO_ON


def test_revisits_compare_several_objectives() -> None:
    scheduler = AshaScheduler(
        metric="val_top1", objectives=["latency_ms"], grace_period=1, reduction_factor=3, max_epochs=9, revisits=True
    )
    for number, latency in enumerate([5.0, 1.0, 9.0]):
        scheduler.add(TrialRecord(number=number, params={}, objectives={"latency_ms": latency}))
    assert judge(scheduler, 0, 1, 0.5) is GO_ON
    assert judge(scheduler, 1, 1, 0.6) is GO_ON
    assert judge(scheduler, 0, 2, 0.9) is STOP  # slower and worse at epoch 1


def test_of_equal_scores_the_earlier_keeps_its_place() -> None:
    scheduler = asha()
    # The fourth arrival makes room for a second one, but those that came before it are ahead.
    assert [judge(scheduler, number, 1, 0.5) for number in range(7)] == [GO_ON] + [STOP] * 6


def test_a_trial_that_patience_ends_at_a_rung_counts_there_as_after_a_restart() -> None:
    history = [record(0, [0.5], Status.COMPLETED), record(1, [0.4, 0.5, 0.3], Status.COMPLETED)]
    running, resumed = asha(), asha(*history)
    begin(running, 0, 1)
    for ended in history:
        for epoch, value in ended.curve.items():
            if epoch < ended.epochs:  # the last is not asked about
                judge(running, ended.number, epoch, value)
        running.close(ended)
    for epoch, points in ((1, {0: (-0.5,), 1: (-0.4,)}), (3, {1: (-0.5,)})):
        assert running.bracket.rungs[epoch].points == resumed.bracket.rungs[epoch].points == points


def test_rungs_survive_a_restart() -> None:
    scheduler = asha(record(0, [0.5, 0.6, 0.4], Status.RUNNING), record(1, [0.8], Status.RUNNING), record(2, [0.2]))
    assert scheduler.bracket.rungs[1].points == {0: (-0.5,), 1: (-0.8,), 2: (-0.2,)}
    assert scheduler.bracket.rungs[3].points == {0: (-0.6,)}  # the best until then
    # Trial 0 passed epoch 1 before the restart; that trial 1 is better now does not undo it.
    assert judge(scheduler, 0, 1, 0.5) is GO_ON
    # A new trial meets the old scores.
    assert judge(scheduler, 3, 1, 0.4) is STOP


def test_of_equal_scores_the_earlier_is_ahead_after_a_restart_as_well() -> None:
    history = [record(number, [0.5], Status.RUNNING) for number in range(3)]
    scheduler = asha(*history)
    scheduler.put_in_order([(2, 1), (0, 1), (1, 1)])
    assert [judge(scheduler, number, 1, 0.5) for number in range(3)] == [STOP, STOP, GO_ON]
    hyperband = HyperbandScheduler(metric="val_top1", grace_period=1, reduction_factor=3, max_epochs=9)
    hyperband.take_up([record(number, [0.5], Status.RUNNING) for number in range(6)])
    hyperband.put_in_order([(number, 1) for number in (5, 3, 1, 4, 2, 0)])
    rung = hyperband.brackets[0].rungs[1]
    assert len(rung.points) > 1 and list(rung.points) == [n for n in (5, 3, 1, 4, 2, 0) if n in rung.points]


def test_the_last_epoch_before_a_restart_is_decided_again() -> None:
    scheduler = asha(record(0, [0.5], Status.RUNNING), record(1, [0.8]), record(2, [0.7]))
    assert judge(scheduler, 0, 1, 0.5) is STOP
    assert scheduler.bracket.rungs[1].points == {0: (-0.5,), 1: (-0.8,), 2: (-0.7,)}  # not counted twice


# --- asha_promotion ---


def promotion(*history: TrialRecord, metric: str = "val_top1") -> PromotionScheduler:
    scheduler = PromotionScheduler(metric=metric, grace_period=1, reduction_factor=3, max_epochs=9)
    scheduler.take_up(history)
    return scheduler


def promotions(scheduler: FullScheduler, *, closing: bool = False) -> list[int]:
    found = []
    while isinstance(step := scheduler.next_step(closing=closing), Continue):
        found.append(step.number)
    assert step is None
    return found


@pytest.mark.parametrize(("metric", "sign"), [("val_top1", 1.0), ("val_loss", -1.0)])
def test_every_trial_pauses_and_a_third_of_a_rung_is_sent_on(metric: str, sign: float) -> None:
    scheduler = promotion(metric=metric)
    sent: list[list[int]] = []
    for number, score in enumerate([0.5, 0.6, 0.4, 0.7, 0.55, 0.65, 0.8, 0.3, 0.2]):
        begin(scheduler, number)
        assert judge(scheduler, number, 1, sign * score) is PAUSE
        sent.append(promotions(scheduler))
    # Of 3 arrivals the best one may go, of 6 the best two, of 9 the best three; who was sent is not called back.
    assert sent == [[], [], [1], [3], [], [5], [6], [], []]
    assert scheduler.stopped == set()
    assert scheduler.paused == {0, 2, 4, 7, 8}
    for number, score in [(1, 0.6), (3, 0.75), (5, 0.9), (6, 0.85)]:
        assert judge(scheduler, number, 1, sign * score) is GO_ON  # repeated after the pause
        assert judge(scheduler, number, 2, sign * score) is GO_ON
        assert judge(scheduler, number, 3, sign * score) is PAUSE
    assert scheduler.rungs[3] == {1: (-0.6,), 3: (-0.75,), 5: (-0.9,), 6: (-0.85,)}
    assert promotions(scheduler) == [5]
    assert judge(scheduler, 5, 8, 0.0) is GO_ON


def test_of_equal_scores_the_lower_number_is_sent_on() -> None:
    scheduler = promotion()
    for number in (2, 0, 1):  # whichever arrives first
        judge(scheduler, number, 1, 0.5)
    assert promotions(scheduler) == [0]


def test_a_trial_that_failed_gives_its_place_to_the_next() -> None:
    scheduler = promotion()
    for number, score in enumerate([0.9, 0.8, 0.1]):
        judge(scheduler, number, 1, score)
    assert promotions(scheduler) == [0]
    scheduler.close(record(0, [0.9], Status.FAILED))
    assert promotions(scheduler) == [1]


def test_however_few_the_trials_one_is_trained_in_full() -> None:
    scheduler = promotion()
    judge(scheduler, 0, 1, 0.1)
    judge(scheduler, 1, 1, 0.2)
    assert promotions(scheduler) == []
    assert promotions(scheduler, closing=True) == [1]
    judge(scheduler, 1, 3, 0.2)
    assert promotions(scheduler, closing=True) == [1]
    assert promotions(scheduler, closing=True) == []


def test_who_waits_and_who_was_sent_on_follows_from_the_curves() -> None:
    history = (
        record(0, [0.9, 0.9], Status.RUNNING),  # sent on from the first rung, and cut off
        record(1, [0.8], Status.RUNNING),  # waits
        record(2, [0.7], Status.FAILED),
        record(3, [], Status.RUNNING),  # cut off before the first rung
        record(4, [0.85], Status.RUNNING),
        record(5, [0.1], Status.RUNNING),
    )
    scheduler = promotion(*history)
    assert scheduler.paused == {1, 4, 5}
    assert promotions(scheduler) == []  # 5 arrivals send one on, and that is 0
    assert judge(scheduler, 0, 1, 0.9) is GO_ON
    assert judge(scheduler, 3, 1, 0.2) is PAUSE
    assert promotions(scheduler) == [4]  # the second of 6


# --- hyperband ---


def test_shares_of_the_brackets() -> None:
    # Table 1 of arXiv:1603.06560: R = 81, eta = 3.
    assert bracket_shares(5, reduction_factor=3) == [81, 34, 15, 8, 5]
    assert bracket_shares(1, reduction_factor=4) == [1]


def test_trials_are_dealt_to_brackets_in_exact_proportion() -> None:
    scheduler = HyperbandScheduler(metric="val_top1", grace_period=1, reduction_factor=3, max_epochs=81)
    assert [list(bracket.rungs) for bracket in scheduler.brackets] == [[1, 3, 9, 27], [3, 9, 27], [9, 27], [27], []]
    begin(scheduler, *range(0, 3 * 143, 3))  # numbers have gaps where proposals were refused
    dealt = [scheduler.bracket_of(number) for number in range(0, 3 * 143, 3)]
    assert [dealt.count(bracket) for bracket in range(5)] == [81, 34, 15, 8, 5]
    early = [dealt[:36].count(bracket) for bracket in range(5)]
    assert early == [20, 9, 4, 2, 1]  # a quarter in, each has a quarter of its share, to within one
    again = HyperbandScheduler(metric="val_top1", grace_period=1, reduction_factor=3, max_epochs=81)
    again.take_up([record(number, []) for number in range(0, 3 * 143, 3)])
    assert [again.bracket_of(number) for number in range(0, 3 * 143, 3)] == dealt


def test_a_bracket_compares_its_own_trials_only() -> None:
    scheduler = HyperbandScheduler(metric="val_top1", grace_period=1, reduction_factor=2, max_epochs=4)
    begin(scheduler, *range(8))
    for number in range(8):
        first = judge(scheduler, number, 1, 1.0 - number / 10)  # worse and worse
        earliest = [each for each in range(number + 1) if scheduler.bracket_of(each) == 0]
        assert first is (STOP if scheduler.bracket_of(number) == 0 and earliest[0] != number else GO_ON)


# --- median ---


def test_median_of_running_averages() -> None:
    scheduler = MedianScheduler(metric="val_top1", grace_period=2, min_trials=3)
    for number, values in enumerate([[0.25, 0.5], [0.5, 0.75], [0.5, 1.0]]):
        assert [judge(scheduler, number, epoch, value) for epoch, value in enumerate(values, 1)] == [GO_ON, GO_ON]
    # Averages at epoch 2: 0.375, 0.625, 0.75.
    assert judge(scheduler, 3, 1, 0.0) is GO_ON  # grace period
    assert judge(scheduler, 3, 2, 0.625) is GO_ON  # a tie with their median
    # Now 0.3125 is among them: the median of four is 0.5.
    judge(scheduler, 4, 1, 0.1)
    assert judge(scheduler, 4, 2, 0.49) is STOP
    assert judge(scheduler, 5, 1, 0.0) is GO_ON
    assert judge(scheduler, 5, 3, 0.0) is GO_ON  # no other has come as far


def test_the_median_rule_rebuilds_its_averages() -> None:
    scheduler = MedianScheduler(metric="val_loss", grace_period=1, min_trials=2)
    scheduler.take_up([record(0, [1.0, 0.5]), record(1, [0.8, 0.4]), record(2, [0.9], Status.RUNNING)])
    assert judge(scheduler, 2, 1, 0.9) is GO_ON  # decided again: the median of 1.0 and 0.8
    assert judge(scheduler, 2, 2, 0.7) is STOP  # 0.75 and 0.6
    assert judge(scheduler, 3, 1, 0.91) is STOP  # 0.8, 0.9, 1.0


# --- curves ---

EPOCHS = 30


def saturating(end: float, *, rate: float = 0.15, noise: float = 0.004, seed: int = 0) -> list[float]:
    """A curve that rises from 0.3 towards its end."""
    rng = np.random.default_rng([seed, int(1e6 * end)])
    epochs = np.arange(1, EPOCHS + 1)
    values = end - (end - 0.3) * np.exp(-rate * epochs) + rng.normal(0, noise, EPOCHS)
    return [float(value) for value in values]


def curves(*history: TrialRecord, metric: str = "val_top1") -> CurveScheduler:
    scheduler = CurveScheduler(metric=metric, max_epochs=EPOCHS, grace_period=4, min_trials=5, threshold=0.05)
    scheduler.take_up(history)
    return scheduler


def complete(ends: list[float], **changes: float) -> list[TrialRecord]:
    return [
        record(number, saturating(end, seed=number, **changes), Status.COMPLETED) for number, end in enumerate(ends)
    ]


def epochs_until_stopped(scheduler: FullScheduler, number: int, values: list[float]) -> int:
    begin(scheduler, number)
    best = -1.0
    for epoch, value in enumerate(values, start=1):
        best = max(best, value)
        if scheduler.judge(number, epoch=epoch, value=value, score=best) is STOP:
            return epoch
    return len(values)


def test_nothing_is_stopped_before_enough_is_known() -> None:
    few = curves(*complete([0.7, 0.75, 0.8, 0.9]))
    assert epochs_until_stopped(few, 9, saturating(0.4)) == EPOCHS
    enough = curves(*complete([0.7, 0.75, 0.8, 0.85, 0.9]))
    assert epochs_until_stopped(enough, 9, saturating(0.35)) == 4  # not before the grace period is over


def test_hopeless_curves_are_stopped_and_winners_never() -> None:
    ends = [float(end) for end in np.random.default_rng(0).uniform(0.5, 0.9, 12)]
    for seed in range(20):
        scheduler = curves(*complete(ends))
        assert epochs_until_stopped(scheduler, 100, saturating(0.95, seed=seed)) == EPOCHS
        assert epochs_until_stopped(scheduler, 101, saturating(0.6, seed=seed)) <= 12


def test_a_late_bloomer_survives_where_others_bloomed_late() -> None:
    ends = [0.7, 0.75, 0.8, 0.82, 0.85, 0.88]
    scheduler = curves(*complete(ends, rate=0.04))
    assert epochs_until_stopped(scheduler, 100, saturating(0.95, rate=0.04)) == EPOCHS


def test_where_curves_cannot_be_foretold_nothing_is_stopped() -> None:
    rng = random.Random(0)
    jumps = [[0.3] * 15 + [rng.uniform(0.3, 0.9)] * 15 for _ in range(8)]
    scheduler = curves(*(record(number, values, Status.COMPLETED) for number, values in enumerate(jumps)))
    begin(scheduler, 50)
    assert [judge(scheduler, 50, epoch, 0.3) for epoch in range(1, 15)] == [GO_ON] * 14


def test_lower_is_better_for_a_loss() -> None:
    history = [
        record(number, [2.0 - value for value in saturating(end, seed=number)], Status.COMPLETED)
        for number, end in enumerate([0.7, 0.75, 0.8, 0.85, 0.9])
    ]
    scheduler = curves(*history, metric="val_loss")
    begin(scheduler, 50, 51)
    good, bad = saturating(0.97), saturating(0.5)
    for epoch in range(1, EPOCHS):
        assert judge(scheduler, 50, epoch, 2.0 - max(good[:epoch])) is GO_ON
    decisions = [judge(scheduler, 51, epoch, 2.0 - max(bad[:epoch])) for epoch in range(1, 10)]
    assert STOP in decisions


def test_a_decision_is_cheap() -> None:
    rng = np.random.default_rng(0)
    scheduler = CurveScheduler(metric="val_top1", max_epochs=200, grace_period=1, min_trials=5, threshold=1e-9)
    for number in range(300):
        values = [float(value) for value in np.sort(rng.uniform(0.3, 0.9, 200))]
        scheduler.take_up([record(number, values, Status.COMPLETED)])
    begin(scheduler, 300)
    started = time.process_time()
    for epoch in range(1, 201):
        judge(scheduler, 300, epoch, 0.3)
    assert (time.process_time() - started) / 200 < 0.02


# --- pbt ---


def population(*history: TrialRecord, metric: str = "val_top1") -> PopulationScheduler:
    def perturb(params: Mapping[str, Any], rng: random.Random) -> dict[str, Any]:
        return {"lr": params.get("lr", 0.0) + rng.choice([0.1, 0.2])}

    scheduler = PopulationScheduler(
        metric=metric,
        max_epochs=7,
        interval=2,
        grace_period=1,
        population=4,
        quantile=0.25,
        perturb=perturb,
        seed=0,
    )
    scheduler.take_up(history)
    return scheduler


def all_steps(scheduler: FullScheduler, *, closing: bool = False) -> list[Continue | Exploit]:
    return list(iter(lambda: scheduler.next_step(closing=closing), None))


def test_a_population_waits_for_its_last_member_and_replaces_its_worst() -> None:
    scheduler = population()
    begin(scheduler, 0, 1, 2, 3, 4)  # the fifth opens another population
    for number, value in enumerate([0.5, 0.9, 0.1]):
        assert judge(scheduler, number, 1, value) is GO_ON
        assert judge(scheduler, number, 2, value) is PAUSE
        assert scheduler.next_step(closing=False) is None
    judge(scheduler, 3, 2, 0.6)
    exploit, *others = all_steps(scheduler)
    assert isinstance(exploit, Exploit)
    assert (exploit.loser, exploit.donor, exploit.epoch) == (2, 1, 2)
    assert exploit.params["lr"] in (1.1, 1.2)  # near those of its model
    assert others == [Continue(0), Continue(1), Continue(3)]
    # The heir repeats its parent's epochs, and pauses at its own first comparison only.
    scheduler.add(TrialRecord(number=5, params=exploit.params, lineage=Lineage(parent=1, replaces=2, epoch=2)))
    scheduler.close(record(2, [0.1, 0.1]))
    assert [judge(scheduler, 5, epoch, 0.9) for epoch in (1, 2, 3, 4)] == [GO_ON, GO_ON, GO_ON, PAUSE]
    assert [judge(scheduler, 0, epoch, 0.5) for epoch in (1, 2, 3, 4)] == [GO_ON, GO_ON, GO_ON, PAUSE]


def test_members_that_fail_or_tie_are_not_waited_for_or_replaced() -> None:
    scheduler = population()
    begin(scheduler, 0, 1, 2, 3)
    scheduler.close(record(3, [], Status.FAILED))
    for number in (0, 1, 2):
        judge(scheduler, number, 2, 0.5)
    assert all_steps(scheduler) == [Continue(0), Continue(1), Continue(2)]


def test_a_population_that_will_not_fill_up_begins_as_it_is() -> None:
    scheduler = population()
    begin(scheduler, 0, 1)
    judge(scheduler, 0, 2, 0.5)
    judge(scheduler, 1, 2, 0.7)
    assert all_steps(scheduler) == []
    assert [type(step) for step in all_steps(scheduler, closing=True)] == [Exploit, Continue]


def members(*curves: list[float], statuses: Mapping[int, Status] | None = None) -> list[TrialRecord]:
    return [
        record(number, values, (statuses or {}).get(number, Status.RUNNING)) for number, values in enumerate(curves)
    ]


def test_a_restart_finds_what_a_comparison_still_has_to_do() -> None:
    together = population(*members([0.5, 0.5], [0.9, 0.9], [0.1, 0.1], [0.6, 0.6]))
    assert together.paused == {0, 1, 2, 3}
    exploit, *others = all_steps(together)
    assert isinstance(exploit, Exploit)
    assert others == [Continue(0), Continue(1), Continue(3)]
    heir = record(4, [], Status.RUNNING, lineage=Lineage(parent=1, replaces=2, epoch=2))

    # Killed when the heir was on record and nothing else had happened.
    after = population(*members([0.5, 0.5], [0.9, 0.9], [0.1, 0.1], [0.6, 0.6]), heir)
    assert 4 not in after.paused
    assert all_steps(after) == [Continue(0), Continue(1), Continue(3)]

    # Killed when 0 had trained on, 1 had been let go without reaching an epoch, and 3 had failed.
    after = population(
        *members(
            [0.5, 0.5, 0.5],
            [0.9, 0.9],
            [0.1, 0.1],
            [0.6, 0.6, 0.6],
            statuses={2: Status.STOPPED, 3: Status.FAILED},
        ),
        record(4, [0.9, 0.9, 0.9, 0.8], Status.RUNNING, lineage=Lineage(parent=1, replaces=2, epoch=2)),
    )
    assert after.paused == {1, 4}  # 4 waits at its next comparison
    assert all_steps(after) == [Continue(1)]
    for number, value in [(0, 0.5), (1, 0.9)]:
        assert judge(after, number, 4, value) is PAUSE
    exploit, *others = all_steps(after)
    assert isinstance(exploit, Exploit)
    assert (exploit.loser, exploit.donor, exploit.epoch) == (0, 1, 4)
    assert others == [Continue(1), Continue(4)]


def test_only_what_may_change_in_mid_training_moves_and_stays_in_the_space() -> None:
    config = SearchConfig.model_validate(
        {
            "task": {"data": {"name": "digits"}},
            "space": {
                "arch": {"type": "categorical", "values": ["cnn", "small_cnn"]},
                "cnn_width": {"type": "int", "low": 8, "high": 64},
                "batch_size": {"type": "int", "low": 16, "high": 128},
                "lr": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
                "dropout": {"type": "float", "low": 0.0, "high": 0.5, "step": 0.1},
                "augment": "randaugment",
                "randaugment_num_ops": {"type": "int", "low": 1, "high": 4},
                "mixup_alpha": {"type": "categorical", "values": [0.0, 0.2, 0.8]},
                "mix_prob": {"type": "float", "low": 0.5, "high": 1.0},  # only where mixup_alpha is above 0
            },
            "scheduler": {"name": "pbt", "max_epochs": 9},
            "budget": {"trials": 8},
            "forbid": [{"randaugment_num_ops": [4], "mixup_alpha": [0.8]}],
        }
    )
    space = config.search_space
    model = {"arch": "cnn", "cnn_width": 32, "batch_size": 64, "lr": 0.01, "dropout": 0.5, "randaugment_num_ops": 3}
    model |= {"mixup_alpha": 0.2, "mix_prob": 0.9}
    rng = random.Random(0)
    found = [perturb(model, space, rng=rng, resample=0.25) for _ in range(300)]
    assert all(space.contains(params) is None for params in found)
    assert {(params["arch"], params["cnn_width"], params["batch_size"]) for params in found} == {("cnn", 32, 64)}
    assert {params["mixup_alpha"] for params in found} == {0.0, 0.2, 0.8}
    assert all(("mix_prob" in params) == (params["mixup_alpha"] > 0) for params in found)
    assert {params["randaugment_num_ops"] for params in found} == {1, 2, 3, 4}
    moved = sum(params["lr"] in (pytest.approx(0.008), pytest.approx(0.012)) for params in found)
    assert 0.6 < moved / 300 < 0.9  # three quarters; the rest is drawn anew
    assert {params["dropout"] for params in found} == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5}
    kept = [perturb(model, space, rng=rng, resample=0.0) for _ in range(100)]
    assert {params["dropout"] for params in kept} <= {0.4, 0.5}  # a step down, or held at the end of its domain
    assert {params["randaugment_num_ops"] for params in kept} == {2, 4}
