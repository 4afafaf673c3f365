"""Which parameters promise the best final score? A forest that learns from every epoch of every trial."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from search.draws import UniformDraw
from search.sampler_views import distributions_of
from search.space import Space

_NUM_TREES, _NUM_CANDIDATES = 50, 400

# Of a curve the forest is shown the epochs 1, 3, 9, ... and the last: those between them say little more.
_EPOCH_FACTOR = 3

# Where a number that a trial does not have lies, as seen from its domain, [0, 1].
_ABSENT = -0.5

Rows = NDArray[np.float32]


class ForestSampler(BaseSampler):
    """Predicts scores from parameters and the epoch, and proposes what one tree expects to be best in the end.

    The learning curves of good and of merely quick trials cross, and a scheduler ends most trials at epochs where the
    quick ones lead. A model of the last values, or of their ranks, then takes these for the best and proposes more of
    them, against which the good ones lose at the first rung. With the epoch among the features the few long curves say
    what the short ones come to. Running and paused trials count as well.

    Thompson sampling: each of 400 random candidates is rated by a random tree of an ensemble of extremely randomised
    trees on bootstrap samples, so that where trees disagree is explored.

    Args:
        startup_trials: random trials until this many have reported an epoch.

    Source: Geurts et al., Extremely Randomized Trees, 2006, doi:10.1007/s10994-006-6226-1; forests as surrogates,
    arXiv:2109.09831; candidates each rated by a random draw as in Salinas et al., arXiv:2305.03623.
    """

    def __init__(self, space: Space, *, seed: int, startup_trials: int) -> None:
        self._space = space
        self._whole = distributions_of(space)
        self._rng = random.Random(seed)
        self._seeds = np.random.default_rng(seed)
        self._independent = RandomSampler(seed=seed)
        self._startup_trials = startup_trials

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        del study, trial
        return self._whole

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        del trial
        told = [each for each in study._storage.get_all_trials(study._study_id, deepcopy=False) if _tells(each)]
        if len(told) < max(1, self._startup_trials):
            return self._candidate(search_space)
        candidates = [self._candidate(search_space) for _ in range(_NUM_CANDIDATES)]
        rows, scores = self._observations(told, sign=1.0 if study.direction is StudyDirection.MAXIMIZE else -1.0)
        # Trees do not extrapolate: the last epoch that was seen stands for all later ones.
        at_the_end = np.full((len(candidates), 1), rows[:, -1].max())
        rated = np.hstack([[self._encoded(each) for each in candidates], at_the_end]).astype(np.float32)
        return candidates[int(np.argmax(self._draws(rows, scores, rated)))]

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value, of a parameter that the proposed values do not have."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def _candidate(self, search_space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
        drawn = self._space.suggest(UniformDraw(self._rng))
        return {name: drawn[name] for name in search_space if name in drawn}

    def _draws(self, rows: Rows, scores: NDArray[np.float64], rated: Rows) -> NDArray[np.float64]:
        """A plausible final score of each rated row: what a random tree says of it."""
        from sklearn.ensemble import ExtraTreesRegressor  # takes a second, and only this sampler needs it

        seed = int(self._seeds.integers(2**31))
        forest = ExtraTreesRegressor(_NUM_TREES, bootstrap=True, random_state=seed).fit(rows, scores)
        trees = self._seeds.integers(_NUM_TREES, size=len(rated))
        said = np.array([tree.tree_.predict(rated)[:, 0] for tree in forest.estimators_])
        chosen: NDArray[np.float64] = said[trees, np.arange(len(rated))]
        return chosen

    def _observations(self, told: list[FrozenTrial], *, sign: float) -> tuple[Rows, NDArray[np.float64]]:
        """Features (N, F + 1), the last of which is the logarithm of the epoch, and scores (N,), higher is better.

        What is infeasible has the worst score of all, at the last epoch.
        """
        rows: list[list[float]] = []
        scores: list[float] = []
        infeasible: list[list[float]] = []
        for trial in told:
            features = self._encoded(trial.params)
            if _is_infeasible(trial):
                infeasible.append(features)
                continue
            for epoch, score in _scores_of(trial, sign=sign):
                rows.append([*features, math.log(epoch)])
                scores.append(score)
        last = max((row[-1] for row in rows), default=0.0)
        worst = min(scores, default=0.0)
        rows += [[*features, last] for features in infeasible]
        return np.array(rows, dtype=np.float32), np.array([*scores, *[worst] * len(infeasible)])

    def _encoded(self, params: Mapping[str, Any]) -> list[float]:
        """Parameters as numbers, (F,): a place for each category, and numbers by where they lie in their domain."""
        return [part for name, each in self._whole.items() for part in _encoded(each, params.get(name))]


def _tells(trial: FrozenTrial) -> bool:
    if _is_infeasible(trial):
        return True
    return trial.state is not optuna.trial.TrialState.FAIL and any(
        map(math.isfinite, trial.intermediate_values.values())
    )


def _is_infeasible(trial: FrozenTrial) -> bool:
    return trial.state.is_finished() and any(value > 0 for value in trial.constraints.values())


def _scores_of(trial: FrozenTrial, *, sign: float) -> list[tuple[int, float]]:
    """The best score up to some epochs of a curve."""
    best, found, due = -math.inf, [], 1
    curve = sorted((epoch, value) for epoch, value in trial.intermediate_values.items() if math.isfinite(value))
    for epoch, value in curve:
        best = max(best, sign * value)
        if epoch >= due or epoch == curve[-1][0]:
            found.append((epoch, best))
            due *= _EPOCH_FACTOR
    return found


def _encoded(distribution: BaseDistribution, value: Any) -> list[float]:
    if isinstance(distribution, CategoricalDistribution):
        return [float(value is not None and choice == value) for choice in distribution.choices]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if value is None:
        return [_ABSENT]
    low, high = float(distribution.low), float(distribution.high)
    if distribution.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return [(value - low) / (high - low) if high > low else 0.0]
