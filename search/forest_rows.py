"""What has a search seen of its trials, as rows of numbers? Parameters, epochs, losses, and seconds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.trial_attrs import OBJECTIVES, OUTCOME

# Of a curve the epochs 1, 3, 9, ... and the last are shown: those between them say little more.
_EPOCH_FACTOR = 3

# Where a number that a trial does not have lies, as seen from its domain, [0, 1].
_ABSENT = -0.5

Features = NDArray[np.float32]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """What trials reached.

    Attributes:
        params: of the trial that each row is of, (N,).
        features: (N, F + 1); the last is the logarithm of the epoch.
        losses: (N, O), lower is better: the best of the metric up to that epoch, then what the network costs.
    """

    params: Sequence[Mapping[str, Any]]
    features: Features
    losses: Values


@dataclass(frozen=True)
class _Block:
    """The rows of one trial; none where it tells nothing, one without a loss where it is infeasible."""

    trial: FrozenTrial
    features: Features
    losses: Values
    infeasible: bool

    @property
    def tells(self) -> bool:
        return len(self.features) > 0


class SeenTrials:
    """Knows what trials reached, and computes it once for each: a study of thousands is asked for every proposal.

    Args:
        domains: of every searched parameter.
        direction: of the metric.
    """

    def __init__(self, domains: Mapping[str, BaseDistribution], *, direction: StudyDirection) -> None:
        self._domains = domains
        self._sign = -1.0 if direction is StudyDirection.MAXIMIZE else 1.0
        self._blocks: list[_Block] = []

    def look(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Takes up what is new in a study; the trials of whose parameters something is known.

        Args:
            trials: all of the study, by number. A storage replaces a trial of which something changes.
        """
        for number, trial in enumerate(trials):
            if number == len(self._blocks):
                self._blocks.append(self._block(trial))
            elif self._blocks[number].trial is not trial:
                self._blocks[number] = self._block(trial)
        return [block.trial for block in self._blocks if block.tells]

    def curves(self) -> Curves:
        """Some epochs of every trial.

        What is infeasible is worse than all, by as much as these differ, at the last epoch.
        """
        sound = [block for block in self._blocks if block.tells and not block.infeasible]
        ruled_out = [block for block in self._blocks if block.infeasible]
        features = np.concatenate([block.features for block in [*sound, *ruled_out]])
        losses = np.concatenate([block.losses for block in sound]) if sound else np.zeros((0, 1))
        params = [block.trial.params for block in sound for _ in range(len(block.features))]
        if ruled_out:
            features[len(losses) :, -1] = features[: len(losses), -1].max(initial=0.0)
            losses = np.concatenate([losses, np.tile(_beyond(losses), (len(ruled_out), 1))])
            params += [block.trial.params for block in ruled_out]
        return Curves(params, features, losses)

    def _block(self, trial: FrozenTrial) -> _Block:
        if _is_infeasible(trial):
            row = np.hstack([encoded([trial.params], self._domains), np.zeros((1, 1), dtype=np.float32)])
            return _Block(trial, row, np.zeros((0, 0)), infeasible=True)
        reached = [] if trial.state is TrialState.FAIL else _best_so_far(trial, sign=self._sign)
        if not reached:
            return _Block(trial, np.zeros((0, 0), dtype=np.float32), np.zeros((0, 0)), infeasible=False)
        costs = trial.user_attrs.get(OBJECTIVES, {}).values()
        epochs = np.array([[math.log(epoch)] for epoch, _ in reached], dtype=np.float32)
        features = np.hstack([np.repeat(encoded([trial.params], self._domains), len(reached), axis=0), epochs])
        losses = np.array([(loss, *costs) for _, loss in reached], dtype=np.float64)
        return _Block(trial, features, losses, infeasible=False)


def seconds_of(trials: Iterable[FrozenTrial], domains: Mapping[str, BaseDistribution]) -> tuple[Features, Values]:
    """Parameters (N, F) and logarithms of the seconds per epoch (N,) of the trials whose times are known."""
    params, seconds = [], []
    for trial in trials:
        spent = trial.user_attrs.get(OUTCOME, {}).get("train_s", 0.0)
        if spent > 0 and trial.intermediate_values:
            params.append(trial.params)
            seconds.append(math.log(spent / len(trial.intermediate_values)))
    return encoded(params, domains), np.array(seconds)


def encoded(params: Sequence[Mapping[str, Any]], domains: Mapping[str, BaseDistribution]) -> Features:
    """Parameters of some trials as numbers, (N, F): a place for each category, and numbers by where in their domain."""
    columns = [_encoded(each, [trial.get(name) for trial in params]) for name, each in domains.items()]
    return np.hstack([np.zeros((len(params), 0)), *columns]).astype(np.float32)


def _encoded(distribution: BaseDistribution, values: Sequence[Any]) -> Values:
    if isinstance(distribution, CategoricalDistribution):
        places = {choice: place for place, choice in enumerate(distribution.choices) if choice is not None}
        absent = len(distribution.choices)
        rows: Values = np.eye(absent + 1, absent)[[places.get(each, absent) for each in values]]
        return rows
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = float(distribution.low), float(distribution.high)
    numbers = np.array(values, dtype=np.float64)  # None becomes NaN
    if distribution.log:
        low, high, numbers = math.log(low), math.log(high), np.log(numbers)
    placed = (numbers - low) / (high - low) if high > low else numbers * 0.0
    return np.where(np.isnan(placed), _ABSENT, placed)[:, None]


def _is_infeasible(trial: FrozenTrial) -> bool:
    return trial.state.is_finished() and any(value > 0 for value in trial.constraints.values())


def _beyond(losses: Values) -> Values:
    """Losses (O,) that are worse than all others (N, O); where these are all alike, by 1."""
    if not len(losses):
        return np.zeros(1)
    low, high = losses.min(axis=0), losses.max(axis=0)
    beyond: Values = high + np.where(high > low, high - low, 1.0)
    return beyond


def _best_so_far(trial: FrozenTrial, *, sign: float) -> list[tuple[int, float]]:
    """The lowest loss up to some epochs of a curve."""
    best, found, due = math.inf, [], 1
    curve = sorted((epoch, value) for epoch, value in trial.intermediate_values.items() if math.isfinite(value))
    for epoch, value in curve:
        best = min(best, sign * value)
        if epoch >= due or epoch == curve[-1][0]:
            found.append((epoch, best))
            due *= _EPOCH_FACTOR
    return found
