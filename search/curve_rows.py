"""What has a search seen of its trials, as rows of numbers? Parameters, epochs, losses, and seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
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

# Trials whose rows are put together at a time.
_CHUNK = 256

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
    """The rows of one trial; none where it tells nothing, one without a loss where it is infeasible.

    Attributes:
        train_s: seconds of its training, once it has ended with an epoch or more; None where that is not known.
    """

    trial: FrozenTrial
    features: Features
    losses: Values
    infeasible: bool
    train_s: float | None

    @property
    def tells(self) -> bool:
        return len(self.features) > 0

    @property
    def params(self) -> list[Mapping[str, Any]]:
        """Of each row."""
        return [self.trial.params] * len(self.features)


@dataclass(frozen=True)
class _Rows:
    """The rows of some trials: of those that are sound, of those that are infeasible, and of those with known times."""

    num_told: int
    sound: Features
    losses: Values
    sound_params: Sequence[Mapping[str, Any]]
    infeasible: Features
    infeasible_params: Sequence[Mapping[str, Any]]
    timed: Features
    log_seconds: Values
    train_s: Values


class SeenTrials:
    """Knows what trials reached, and computes it once for each: a study of thousands is asked for every proposal.

    Trials are kept in chunks, whose rows are put together anew only where one of their trials has changed.

    Args:
        domains: of every searched parameter.
        direction: of the metric.
    """

    def __init__(self, domains: Mapping[str, BaseDistribution], *, direction: StudyDirection) -> None:
        self._domains = domains
        self._sign = -1.0 if direction is StudyDirection.MAXIMIZE else 1.0
        self._chunks: list[list[_Block]] = []
        self._rows: list[_Rows | None] = []  # None where they have to be put together anew
        self._settled: set[int] = set()  # chunks in which nothing changes any more

    def look(self, trials: Sequence[FrozenTrial]) -> int:
        """Takes up what is new in a study; how many trials tell something that they did not at the last look.

        Args:
            trials: all of the study, by number. A storage replaces a trial of which something changes.
        """
        num_new = 0
        for place, start in enumerate(range(0, len(trials), _CHUNK)):
            if place not in self._settled:
                num_new += self._look_at(place, trials[start : start + _CHUNK])
        return num_new

    @property
    def num_told(self) -> int:
        """Of how many trials' parameters something is known."""
        return sum(rows.num_told for rows in self._put_together())

    def curves(self) -> Curves:
        """Some epochs of every trial.

        What is infeasible is worse than all, by as much as these differ, at the last epoch.
        """
        chunks = self._put_together()
        features = np.concatenate([*(rows.sound for rows in chunks), *(rows.infeasible for rows in chunks)])
        with_losses = [rows.losses for rows in chunks if len(rows.losses)]
        losses = np.concatenate(with_losses) if with_losses else np.zeros((0, 1))
        params = list(chain.from_iterable(rows.sound_params for rows in chunks))
        ruled_out = list(chain.from_iterable(rows.infeasible_params for rows in chunks))
        if ruled_out:
            features[len(losses) :, -1] = features[: len(losses), -1].max(initial=0.0)
            losses = np.concatenate([losses, np.tile(_beyond(losses), (len(ruled_out), 1))])
        return Curves(params + ruled_out, features, losses)

    def seconds(self) -> tuple[Features, Values]:
        """Parameters (N, F) and logarithms of the seconds per epoch (N,) of the trials whose times are known."""
        chunks = self._put_together()
        features = np.concatenate([rows.timed for rows in chunks])
        return features, np.concatenate([rows.log_seconds for rows in chunks])

    def mean_train_s(self) -> float | None:
        """Seconds that a trial trained, on average over those that have ended; None before the first."""
        known = np.concatenate([rows.train_s for rows in self._put_together()])
        return float(known.mean()) if len(known) else None

    def _look_at(self, place: int, trials: Sequence[FrozenTrial]) -> int:
        if place == len(self._chunks):
            self._chunks.append([])
            self._rows.append(None)
        blocks, num_new = self._chunks[place], 0
        for index, trial in enumerate(trials):
            if index < len(blocks) and blocks[index].trial is trial:
                continue
            blocks[index : index + 1] = [self._block(trial)]
            self._rows[place] = None
            num_new += blocks[index].tells
        if len(trials) == _CHUNK and all(trial.state.is_finished() for trial in trials):
            self._settled.add(place)
        return num_new

    def _put_together(self) -> list[_Rows]:
        whole = [rows or self._rows_of(blocks) for rows, blocks in zip(self._rows, self._chunks, strict=True)]
        self._rows = list(whole)
        return whole

    def _rows_of(self, blocks: Sequence[_Block]) -> _Rows:
        sound = [block for block in blocks if block.tells and not block.infeasible]
        ruled_out = [block for block in blocks if block.infeasible]
        timed = [block for block in blocks if block.tells and block.train_s is not None]
        train_s = np.array([block.train_s for block in timed], dtype=np.float64)
        none = np.hstack([encoded([], self._domains), np.zeros((0, 1), dtype=np.float32)])
        return _Rows(
            num_told=len(sound) + len(ruled_out),
            sound=np.concatenate([none, *(block.features for block in sound)]),
            losses=np.concatenate([block.losses for block in sound]) if sound else np.zeros((0, 1)),
            sound_params=list(chain.from_iterable(block.params for block in sound)),
            infeasible=np.concatenate([none, *(block.features for block in ruled_out)]),
            infeasible_params=list(chain.from_iterable(block.params for block in ruled_out)),
            timed=np.concatenate([none, *(block.features[:1] for block in timed)])[:, :-1],
            log_seconds=np.log(train_s / [len(block.trial.intermediate_values) for block in timed]),
            train_s=train_s,
        )

    def _block(self, trial: FrozenTrial) -> _Block:
        train_s = (trial.user_attrs.get(OUTCOME, {}).get("train_s") if trial.intermediate_values else None) or None
        if _is_infeasible(trial):
            row = np.hstack([encoded([trial.params], self._domains), np.zeros((1, 1), dtype=np.float32)])
            return _Block(trial, row, np.zeros((0, 0)), infeasible=True, train_s=train_s)
        reached = [] if trial.state is TrialState.FAIL else _best_so_far(trial, sign=self._sign)
        if not reached:
            return _Block(trial, np.zeros((0, 0), dtype=np.float32), np.zeros((0, 0)), infeasible=False, train_s=None)
        costs = trial.user_attrs.get(OBJECTIVES, {}).values()
        epochs = np.array([[math.log(epoch)] for epoch, _ in reached], dtype=np.float32)
        features = np.hstack([np.repeat(encoded([trial.params], self._domains), len(reached), axis=0), epochs])
        losses = np.array([(loss, *costs) for _, loss in reached], dtype=np.float64)
        return _Block(trial, features, losses, infeasible=False, train_s=train_s)


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
