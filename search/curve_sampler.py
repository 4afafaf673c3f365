"""Which parameters promise the best final score? A model that learns from every epoch of every trial says."""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from search.curve_rows import Curves, Features, SeenTrials, Values, encoded
from search.draws import NearDraw, UniformDraw
from search.sampler_views import ProposesWholeSpace, distributions_of
from search.space import Space
from search.trees import tree_predictions

_NUM_TREES = 10

# Rows that a tree learns from, drawn anew for each where there are more: a proposal takes no longer in the end than
# after a thousand trials.
_MOST_ROWS = 2_000

# Candidates near each of the best trials so far.
_NUM_NEAR, _NUM_BEST = 40, 5

# Of several objectives, the share of their sum beside the worst of them, so that no tie is left between what is equal
# in the worst (the augmented Tchebycheff function of ParEGO).
_SUM = 0.05

# Proposals that one model makes at most, before it learns anew.
_MOST_OF_ONE = 50

# Part of the time of training that models may take: where trials last less than a second one model serves several.
_MOST_TIME = 0.05

# Part of the candidates that are good enough for their cost to decide between them.
_PROMISING = 0.1


class CurveSampler(ProposesWholeSpace):
    """Predicts scores from parameters and the epoch, and proposes what may well be best in the end.

    The learning curves of good and of merely quick trials cross, and a scheduler ends most trials at epochs where the
    quick ones lead. A model of the last values, or of their ranks, then takes these for the best and proposes more of
    them, against which the good ones lose at the first rung. With the epoch among the features the few long curves say
    what the short ones come to. Running and paused trials count as well.

    Candidates are drawn from the whole space and near the best trials. As in Thompson sampling each is rated by a draw
    from what the model thinks possible, so that where it is unsure is explored. With several objectives each proposal
    weighs them anew by chance, so that the proposals spread over the front.

    Args:
        startup_trials: random trials until this many have reported an epoch.
        cost_aware: prefer among the promising candidates the ones with the most to gain per predicted second.

    Source: candidates each rated by a random draw as in Salinas et al., arXiv:2305.03623; candidates near the best as
    in SMAC, doi:10.1007/978-3-642-25566-3_40; several objectives as in ParEGO, doi:10.1109/TEVC.2005.851274; gain per
    second, arXiv:1206.2944.
    """

    # Candidates from the whole space.
    num_anywhere = 400

    # A model makes proposals until there is more to learn than this part of what it has learned from: below as many
    # rows as its inverse, one.
    news = 0.002

    # What a model costs in seconds, by and large. Not measured while searching, so that seeds repeat a search.
    model_s = 0.02

    def __init__(self, space: Space, *, seed: int, startup_trials: int, cost_aware: bool = False) -> None:
        self._space = space
        self._whole = distributions_of(space)
        self._rng = random.Random(seed)
        self._seeds = np.random.default_rng(seed)
        self._independent = RandomSampler(seed=seed)
        self._startup_trials = startup_trials
        self._cost_aware = cost_aware
        self._seen: SeenTrials | None = None
        self._begun = False
        self._ahead: list[dict[str, Any]] = []  # the best last
        self._num_new = self._enough_news = 0

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        del trial
        if self._seen is None:
            self._seen = SeenTrials(self._whole, direction=study.directions[0])
        self._num_new += self._seen.look(study._storage.get_all_trials(study._study_id, deepcopy=False))
        self._begun = self._begun or self._seen.num_told >= max(1, self._startup_trials)
        if not self._begun:
            return self._candidate(UniformDraw(self._rng), search_space)
        if not self._ahead or self._num_new >= self._enough_news:
            self._ahead = self._most_promising(self._seen.curves(), search_space)
            self._num_new = 0
        return self._ahead.pop()

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value, of a parameter that the proposed values do not have."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def _most_promising(self, seen: Curves, search_space: Mapping[str, BaseDistribution]) -> list[dict[str, Any]]:
        """Some candidates, the best last."""
        self._enough_news = max(int(self.news * len(seen.features)), self._trials_for_a_model())
        seen_scores = -self._in_one(seen.losses)
        candidates = self._candidates(_best(seen.params, seen_scores), search_space)
        rows = encoded(candidates, self._whole)
        draws = self._final_scores(seen.features, seen_scores, rows)
        if self._cost_aware:
            draws = self._gain_per_second(draws, rows)
        chosen: list[int] = []
        for scores in draws:
            scores[chosen] = -np.inf
            chosen.append(int(np.argmax(scores)))
        return [candidates[place] for place in reversed(chosen)]

    def _trials_for_a_model(self) -> int:
        """How many trials train for so long that a model does not delay them much."""
        assert self._seen is not None
        train_s = self._seen.mean_train_s()
        return 1 if train_s is None else math.ceil(self.model_s / (_MOST_TIME * train_s))

    def _candidates(
        self, best: Sequence[Mapping[str, Any]], search_space: Mapping[str, BaseDistribution]
    ) -> list[dict[str, Any]]:
        draws: list[UniformDraw | NearDraw] = [UniformDraw(self._rng)] * self.num_anywhere
        for params in best:
            draws += [NearDraw(params, rng=self._rng)] * _NUM_NEAR
        return [self._candidate(draw, search_space) for draw in draws]

    def _candidate(self, draw: UniformDraw | NearDraw, search_space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
        drawn = self._space.suggest(draw)
        return {name: drawn[name] for name in search_space if name in drawn}

    @abstractmethod
    def _plausible(self, features: Features, scores: Values, asked: Features, *, draws: int) -> Values:
        """Scores that the asked rows may well have (D, N), drawn from what the model thinks possible; higher is better.

        Args:
            features: of what was seen, (S, F + 1); the last is the logarithm of the epoch.
            scores: of the same, (S,).
            asked: (N, F + 1).
        """

    def _final_scores(self, features: Features, scores: Values, rows: Features) -> Values:
        """Plausible final scores of the candidates, (D, N).

        Args:
            features: of what was seen, (S, F + 1).
            scores: of the same, (S,).
            rows: the candidates, (N, F).
        """
        # Trees do not extrapolate, and a Gaussian process knows nothing there: the last epoch that was seen stands for
        # all later ones.
        at_the_end = np.full((len(rows), 1), features[:, -1].max(), dtype=np.float32)
        draws = min(len(rows), _MOST_OF_ONE)
        return self._plausible(features, scores, np.hstack([rows, at_the_end]), draws=draws)

    def _in_one(self, losses: Values) -> Values:
        """Losses (N, O) as one (N,), by weights drawn for this proposal."""
        if losses.shape[1] == 1:
            return losses[:, 0]
        low, high = losses.min(axis=0), losses.max(axis=0)
        weighed = self._seeds.dirichlet(np.ones(losses.shape[1])) * (losses - low) / np.where(high > low, high - low, 1)
        in_one: Values = weighed.max(axis=1) + _SUM * weighed.sum(axis=1)
        return in_one

    def _gain_per_second(self, scores: Values, rows: Features) -> Values:
        """By how much each candidate is better than all but a tenth, for a second of its predicted time."""
        assert self._seen is not None
        known, seconds = self._seen.seconds()
        if len(known) < max(1, self._startup_trials):
            return scores
        predicted = self._trees(known, seconds, rows).mean(axis=0)
        gain = np.maximum(0.0, scores - np.quantile(scores, 1 - _PROMISING, axis=1, keepdims=True))
        per_second: Values = gain / np.exp(predicted)
        return np.where(per_second.any(axis=1, keepdims=True), per_second, scores)

    def _trees(self, rows: Features, targets: Values, asked: Features) -> Values:
        """What each tree says, (T, N)."""
        seed = int(self._seeds.integers(2**31))
        return tree_predictions(rows, targets, asked, num_trees=_NUM_TREES, most_rows=_MOST_ROWS, seed=seed)


def _best(params: Sequence[Mapping[str, Any]], scores: Values) -> list[Mapping[str, Any]]:
    """The parameters of the best trials, best first, each once.

    Args:
        params: of every row.
        scores: of every row, (N,), higher is better.
    """
    found: list[Mapping[str, Any]] = []
    for place in np.argsort(-scores, kind="stable"):
        if params[place] not in found:
            found.append(params[place])
        if len(found) == _NUM_BEST:
            break
    return found
