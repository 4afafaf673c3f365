"""Stops a trial when its learning curve makes it improbable that it will beat the best one so far."""

from __future__ import annotations

import math

import numpy as np

from search.extrapolation import Array, Calibration, calibrate, chance_to_beat
from search.ledger import Status, TrialRecord
from search.schedulers import Decision, FullScheduler, is_loss

# A shape has two parameters: fewer epochs fit every one.
_FEWEST_EPOCHS = 3

# The latest curves of which errors are measured: enough, and a decision stays a matter of milliseconds.
_MOST_CURVES = 100


class CurveScheduler(FullScheduler):
    """Stops a trial when the chance that its best value beats the incumbent's is below a threshold.

    The curve of best values is extrapolated to max_epochs by saturating shapes (`search.extrapolation`), and how much
    that is worth is measured on the trials that were trained to their end: extrapolated from the same epoch, how far
    off was it? Where curves cannot be foretold the chance stays high and nothing is stopped. Before `min_trials`
    trials were trained to their end nothing is known, and none is stopped.

    The incumbent is the best value of any other trial, running ones included.

    Args:
        grace_period: epochs before a trial may be stopped; at least three in any case.
        threshold: chance below which it is, in (0, 1).

    Source: after Domhan et al., Speeding up automatic hyperparameter optimization by extrapolation of learning
    curves, IJCAI 2015; with least squares and measured errors in place of Markov chains.
    """

    def __init__(self, *, metric: str, max_epochs: int, grace_period: int, min_trials: int, threshold: float) -> None:
        super().__init__(metric=metric)
        self._max_epochs = max_epochs
        self._grace_period = max(grace_period, _FEWEST_EPOCHS)
        self._min_trials = min_trials
        self._threshold = threshold
        self._sign = -1.0 if is_loss(metric) else 1.0  # curves are kept with higher values being better
        self._upper = 0.0 if is_loss(metric) else 1.0
        self._curves: dict[int, list[float]] = {}  # best values so far, by epoch
        self._ended: list[int] = []
        self._calibrations: dict[int, tuple[int, Calibration]] = {}  # by epoch, with the number ended by then

    def close(self, record: TrialRecord) -> None:
        super().close(record)
        if record.status is Status.COMPLETED:
            self._replay(record)
            self._ended.append(record.number)

    def chance(self, number: int) -> float | None:
        """The probability that a trial will beat the incumbent; None while it cannot be told."""
        curve = self._curves[number]
        others = [other[-1] for each, other in self._curves.items() if each != number]
        calibration = self._calibration(len(curve))
        if calibration is None or not others:
            return None
        incumbent = max(others)
        if curve[-1] > incumbent:
            return 1.0
        return chance_to_beat(
            incumbent,
            np.array(curve),
            calibration,
            ends=self._ends(len(curve)),
            max_epochs=self._max_epochs,
            upper=self._upper,
        )

    def _decide(self, number: int, *, epoch: int, value: float, score: float) -> Decision:
        del value
        self._add(number, epoch=epoch, score=score)
        if epoch < self._grace_period:
            return Decision.GO_ON
        chance = self.chance(number)
        return Decision.STOP if chance is not None and chance < self._threshold else Decision.GO_ON

    def _replay(self, record: TrialRecord) -> None:
        best = -math.inf
        for epoch, value in sorted(record.curve.items()):
            best = max(best, self._sign * value)
            self._add(record.number, epoch=epoch, score=self._sign * best)

    def _add(self, number: int, *, epoch: int, score: float) -> None:
        curve = self._curves.setdefault(number, [])
        if epoch == len(curve) + 1:  # else it is repeated after a restart
            curve.append(self._sign * score)

    def _known(self, epoch: int) -> list[list[float]]:
        """The latest curves with that many epochs whose end is known."""
        known = [self._curves[number] for number in self._ended if len(self._curves[number]) >= epoch]
        return known[-_MOST_CURVES:]

    def _ends(self, epoch: int) -> Array:
        return np.array([curve[-1] for curve in self._known(epoch)])

    def _calibration(self, epoch: int) -> Calibration | None:
        curves = self._known(epoch)
        if len(curves) < self._min_trials:
            return None
        ended, calibration = self._calibrations.get(epoch, (0, None))
        if calibration is None or ended != len(self._ended):
            begun = np.array([curve[:epoch] for curve in curves])
            calibration = calibrate(begun, self._ends(epoch), max_epochs=self._max_epochs, upper=self._upper)
            self._calibrations[epoch] = len(self._ended), calibration
        return calibration
