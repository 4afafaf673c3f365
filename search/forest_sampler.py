"""The final score as a forest of extremely randomised trees predicts it."""

from __future__ import annotations

import numpy as np

from search.curve_rows import Features, Values
from search.curve_sampler import CurveSampler


class ForestSampler(CurveSampler):
    """Rates each candidate by a random tree of an ensemble of extremely randomised trees on bootstrap samples.

    Where trees disagree is explored. Its time for a proposal hardly grows with the search.

    Source: Geurts et al., Extremely Randomized Trees, 2006, doi:10.1007/s10994-006-6226-1; forests as surrogates,
    arXiv:2109.09831.
    """

    def _plausible(self, features: Features, scores: Values, asked: Features, *, draws: int) -> Values:
        said = self._trees(features, scores, asked)
        rated: Values = said[self._seeds.integers(len(said), size=(draws, len(asked))), np.arange(len(asked))]
        return rated
