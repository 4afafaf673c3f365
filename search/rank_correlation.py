"""Did early scores foretell final ones? Rank correlation between the scores at an epoch and those at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from search.ledger import Status, TrialRecord, best_until, rank
from trainables.metric_names import is_better

# Below so many trials a rank correlation says nothing: of 6 unrelated pairs one set in ten has |rho| of 0.77 or more.
MIN_TRIALS = 7

# A rung whose scores order those that went on no better than this may have stopped a trial that would have won.
_WEAK = 0.3


@dataclass(frozen=True)
class RungCorrelation:
    """One epoch at which trials are compared.

    Attributes:
        epoch: the epoch, from 1.
        reached: trials that have a score there; failed ones are left out.
        passed: of these, trials that trained further.
        finished: of these, trials that trained to their end; the correlations are over them.
        spearman: between the score at the epoch and the final one, higher meaning that the order is kept; None where
            fewer than `MIN_TRIALS` finished, or where all scores are equal.
        kendall: Kendall's tau-b of the same, which allows for ties.
        winner_place: place of the best trial among all that reached the epoch, by its score there; 1 is first, equal
            scores share the best place. None where it did not get there.
    """

    epoch: int
    reached: int
    passed: int
    finished: int
    spearman: float | None
    kendall: float | None
    winner_place: int | None


def rung_correlations(
    records: Sequence[TrialRecord], *, metric: str, rungs: Sequence[int]
) -> tuple[RungCorrelation, ...]:
    """How well the scores at each of some epochs order the trials as their final scores do.

    A score at an epoch is the best value up to it, as the trial schedulers take it. The correlation is over trials
    that trained to their end only, as nobody knows where a stopped one would have come. They were chosen for their
    scores at the rung, which makes the correlation smaller than it would be over all trials.

    Args:
        rungs: epochs, from 1.
    """
    sound = [record for record in records if record.is_usable]
    winner = next(iter(rank(sound, metric=metric)), None)
    return tuple(_at(epoch, sound, winner=winner, metric=metric) for epoch in rungs)


def score_until(record: TrialRecord, epoch: int, *, metric: str) -> float | None:
    """The best value up to an epoch; None if the trial did not get there."""
    if record.epochs < epoch:
        return None
    best = best_until(record, epoch, metric=metric)
    return None if math.isnan(best) else best


def early_stopping_warning(
    correlations: Sequence[RungCorrelation], *, reduction_factor: int | None = None
) -> str | None:
    """A sentence for a person where the rungs may have stopped trials that would have won; else None.

    Args:
        reduction_factor: of so many trials one goes on at each rung, where the scheduler has rungs.
    """
    stopping = [each for each in correlations if each.passed < each.reached]
    weak = [each for each in stopping if each.spearman is not None and each.spearman < _WEAK]
    if weak:
        worst = min(weak, key=lambda each: each.spearman or 0.0)
        return (
            f"Early stopping may have misled: among the {worst.finished} trials that trained to their end, the order "
            f"at epoch {worst.epoch} says little about the final order (Spearman {worst.spearman:.2f}), and "
            f"{worst.reached - worst.passed} trials ended there. A longer grace_period would show whether one of them "
            "was better."
        )
    lucky = [each for each in stopping if reduction_factor and _came_through_by_luck(each, reduction_factor)]
    if not lucky:
        return None
    first = lucky[0]
    return (
        f"Early stopping may have misled: at epoch {first.epoch} the best trial was only in place {first.winner_place} "
        f"of {first.reached}, and went on because it was there early; {first.reached - first.passed} others ended "
        "there. A longer grace_period would show whether one of them was better."
    )


def _came_through_by_luck(rung: RungCorrelation, reduction_factor: int) -> bool:
    enough = rung.reached >= max(MIN_TRIALS, 2 * reduction_factor)
    return enough and rung.winner_place is not None and rung.winner_place > rung.reached / reduction_factor


def _at(epoch: int, records: Sequence[TrialRecord], *, winner: TrialRecord | None, metric: str) -> RungCorrelation:
    scores = {record.number: score_until(record, epoch, metric=metric) for record in records}
    there = [record for record in records if scores[record.number] is not None]
    finished = [record for record in there if record.status is Status.COMPLETED and record.epochs > epoch]
    own = scores.get(winner.number) if winner is not None else None
    spearman, kendall = _correlations(
        [scores[record.number] for record in finished], [record.score for record in finished]
    )
    return RungCorrelation(
        epoch=epoch,
        reached=len(there),
        passed=sum(record.epochs > epoch for record in there),
        finished=len(finished),
        spearman=spearman,
        kendall=kendall,
        winner_place=None
        if own is None
        else 1 + sum(is_better(scores[record.number] or 0.0, own, metric=metric) for record in there),
    )


def _correlations(early: Sequence[float | None], final: Sequence[float | None]) -> tuple[float | None, float | None]:
    if len(early) < MIN_TRIALS or len(set(early)) == 1 or len(set(final)) == 1:
        return None, None
    from scipy.stats import kendalltau, spearmanr

    return float(spearmanr(early, final).statistic), float(kendalltau(early, final).statistic)
