"""Asynchronous successive halving, stopping form, with rungs counted in integers and kept over a restart."""

from __future__ import annotations

import math
from collections.abc import Sequence

from search.ledger import TrialRecord, best_until
from search.rungs import rung_epochs
from search.schedulers import Decision, FullScheduler
from trainables.metric_names import is_better


class Rung:
    """The scores that trials had when they reached one epoch."""

    def __init__(self, epoch: int, *, metric: str, reduction_factor: int) -> None:
        self.epoch = epoch
        self.scores: dict[int, float] = {}
        self._metric = metric
        self._reduction_factor = reduction_factor

    def admits(self, number: int, score: float) -> bool:
        """Records a trial's score and says whether it is among the best 1 / reduction_factor so far.

        The first to arrive is. Of equal scores the earlier keeps its place: on small validation splits many trials
        tie, and letting all of them go on would spend the budget on what cannot be told apart.
        """
        self.scores.pop(number, None)
        ahead = sum(not is_better(score, other, metric=self._metric) for other in self.scores.values())
        self.scores[number] = score
        return ahead < math.ceil(len(self.scores) / self._reduction_factor)


class Bracket:
    """Rungs that trials climb together."""

    def __init__(self, epochs: Sequence[int], *, metric: str, reduction_factor: int) -> None:
        self.rungs = {epoch: Rung(epoch, metric=metric, reduction_factor=reduction_factor) for epoch in epochs}
        self._metric = metric

    def decide(self, number: int, *, epoch: int, score: float) -> Decision:
        """Stops a trial at a rung where it is not among the best."""
        rung = self.rungs.get(epoch)
        return Decision.GO_ON if rung is None or rung.admits(number, score) else Decision.STOP

    def replay(self, record: TrialRecord) -> None:
        """Fills the rungs that a trial reached in an earlier session."""
        for epoch, rung in self.rungs.items():
            if epoch in record.curve:
                rung.scores[record.number] = best_until(record, epoch, metric=self._metric)


class AshaScheduler(FullScheduler):
    """ASHA, stopping form: at each rung a trial goes on only if it is among the best there so far.

    The score at a rung is the best validation value up to that epoch, which is also what a trial is finally ranked by.

    Source: Li et al., A System for Massively Parallel Hyperparameter Tuning, arXiv:1810.05934.
    """

    def __init__(self, *, metric: str, grace_period: int, reduction_factor: int, max_epochs: int) -> None:
        super().__init__(metric=metric)
        epochs = rung_epochs(grace_period=grace_period, reduction_factor=reduction_factor, max_epochs=max_epochs)
        self.bracket = Bracket(epochs, metric=metric, reduction_factor=reduction_factor)

    def _decide(self, number: int, *, epoch: int, value: float, score: float) -> Decision:
        del value
        return self.bracket.decide(number, epoch=epoch, score=score)

    def _replay(self, record: TrialRecord) -> None:
        self.bracket.replay(record)
