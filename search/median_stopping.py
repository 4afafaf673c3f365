"""The median rule: a trial ends whose best value is below what the others had on average by the same epoch."""

from __future__ import annotations

from statistics import median

from search.ledger import TrialRecord
from search.schedulers import Decision, FullScheduler
from trainables.metric_names import is_better


class MedianScheduler(FullScheduler):
    """Stops a trial whose best value is worse than the median of the other trials' running averages.

    The running average of a trial at an epoch is the mean of its values up to it. A tie with the median goes on.

    Args:
        grace_period: epochs before a trial may be stopped.
        min_trials: other trials that must have reached the epoch.

    Source: Golovin et al., Google Vizier, KDD 2017 (section 3.2.1).
    """

    def __init__(self, *, metric: str, grace_period: int, min_trials: int) -> None:
        super().__init__(metric=metric)
        self._grace_period = grace_period
        self._min_trials = min_trials
        self._averages: dict[int, dict[int, float]] = {}  # by epoch, by trial
        self._sums: dict[int, tuple[int, float]] = {}  # epochs of a trial, and the sum of their values

    def _decide(self, number: int, *, epoch: int, value: float, score: float) -> Decision:
        self._add_value(number, epoch=epoch, value=value)
        others = [average for other, average in self._averages[epoch].items() if other != number]
        if epoch < self._grace_period or len(others) < self._min_trials:
            return Decision.GO_ON
        return Decision.STOP if is_better(median(others), score, metric=self._ranked_by) else Decision.GO_ON

    def _replay(self, record: TrialRecord) -> None:
        for epoch, value in sorted(record.curve.items()):
            self._add_value(record.number, epoch=epoch, value=value)

    def _add_value(self, number: int, *, epoch: int, value: float) -> None:
        epochs, total = self._sums.get(number, (0, 0.0))
        if epoch > epochs:  # else it is the last epoch before a restart, reported again
            self._sums[number] = (epoch, total + value)
            self._averages.setdefault(epoch, {})[number] = (total + value) / epoch
