"""Whether early scores foretell final ones, on curves whose answer is known."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from search.ledger import Status, TrialRecord
from search.rank_correlation import MIN_TRIALS, early_stopping_warning, rung_correlations


def trial(number: int, *values: float, status: Status = Status.COMPLETED, best: float | None = None) -> TrialRecord:
    return TrialRecord(
        number=number,
        params={},
        status=status,
        curve=dict(enumerate(values, start=1)),
        score=max(values) if best is None else best,
    )


def finished(early: Sequence[float], final: Sequence[float]) -> list[TrialRecord]:
    return [trial(number, *pair) for number, pair in enumerate(zip(early, final, strict=True))]


EARLY = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
REVERSED = [0.97, 0.96, 0.95, 0.94, 0.93, 0.92, 0.91]


def test_correlations_are_the_textbook_ones() -> None:
    # One neighbouring pair exchanged: Kendall 1 - 2 * 1 / 21, Spearman 1 - 6 * 2 / (7 * 48).
    (rung,) = rung_correlations(
        finished(EARLY, [0.82, 0.81, 0.83, 0.84, 0.85, 0.86, 0.87]), metric="val_top1", rungs=[1]
    )
    assert (rung.reached, rung.passed, rung.finished) == (7, 7, 7)
    assert rung.kendall == pytest.approx(1 - 2 / 21)
    assert rung.spearman == pytest.approx(1 - 12 / 336)


def test_a_lower_loss_is_better() -> None:
    losses = [trial(number, 1 + number, 0.1 * (7 - number), best=0.1 * (7 - number)) for number in range(7)]
    (rung,) = rung_correlations(losses, metric="val_loss", rungs=[1])
    assert rung.spearman == pytest.approx(-1)
    assert rung.winner_place == 7  # trial 6 has the lowest final and the highest early loss


def test_the_score_at_a_rung_is_the_best_until_then() -> None:
    dips = [trial(number, 0.5 + 0.01 * number, 0.1, 0.6 + 0.01 * number) for number in range(MIN_TRIALS)]
    (rung,) = rung_correlations(dips, metric="val_top1", rungs=[2])
    assert rung.spearman == pytest.approx(1)


def test_too_few_trials_and_equal_scores_have_no_correlation() -> None:
    few = finished(EARLY, EARLY)[: MIN_TRIALS - 1]
    tied = finished(EARLY, [0.9] * 7)
    for records in (few, tied):
        (rung,) = rung_correlations(records, metric="val_top1", rungs=[1])
        assert (rung.spearman, rung.kendall) == (None, None)
        assert early_stopping_warning([rung]) is None


def test_stopped_and_failed_trials_count_for_what_they_are() -> None:
    records = [
        *finished(EARLY, [0.8 + 0.01 * number for number in range(7)]),
        *(trial(7 + number, 0.05, status=Status.STOPPED) for number in range(4)),
        trial(11, 0.99, status=Status.FAILED),
        TrialRecord(number=12, params={}, status=Status.FAILED),
    ]
    (rung,) = rung_correlations(records, metric="val_top1", rungs=[1])
    assert (rung.reached, rung.passed, rung.finished, rung.winner_place) == (11, 7, 7, 1)
    assert rung.spearman == pytest.approx(1)
    assert early_stopping_warning([rung], reduction_factor=3) is None


def test_a_reversed_order_is_told() -> None:
    records = [
        *finished(EARLY, REVERSED),
        *(trial(7 + number, 0.05, status=Status.STOPPED) for number in range(4)),
    ]
    warning = early_stopping_warning(rung_correlations(records, metric="val_top1", rungs=[1]))
    assert warning is not None
    assert "at epoch 1 says little about the final order (Spearman -1.00), and 4 trials ended there" in warning


def test_where_nothing_was_stopped_nothing_misled() -> None:
    rungs = rung_correlations(finished(EARLY, REVERSED), metric="val_top1", rungs=[1])
    assert early_stopping_warning(rungs, reduction_factor=3) is None


def test_a_winner_that_came_through_by_luck_is_told() -> None:
    records = [
        trial(0, 0.1, 0.9),
        *(trial(1 + number, 0.2 + 0.01 * number, status=Status.STOPPED) for number in range(9)),
    ]
    rungs = rung_correlations(records, metric="val_top1", rungs=[1])
    warning = early_stopping_warning(rungs, reduction_factor=3)
    assert warning is not None
    assert "only in place 10 of 10" in warning
    assert early_stopping_warning(rungs) is None  # without rungs of a scheduler nobody was let through


def test_no_trials_no_trouble() -> None:
    (rung,) = rung_correlations([], metric="val_top1", rungs=[1])
    assert (rung.reached, rung.passed, rung.winner_place) == (0, 0, None)
