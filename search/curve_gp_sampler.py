"""The final score as a Gaussian process over parameters and epochs predicts it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from search.curve_rows import Features, Values
from search.curve_sampler import CurveSampler
from search.gaussian_process import GaussianProcess

# Rows that it learns from at most, the better half of them the best of all and the others drawn anew for each proposal:
# the time for a proposal grows with their cube.
_MOST_ROWS = 300

# The hyperparameters are fitted anew when there are as many times more rows than at the last fit.
_REFIT = 1.15


class CurveGpSampler(CurveSampler):
    """Rates all candidates by one function drawn from a Gaussian process over parameters and the epoch's logarithm.

    That function is one that may be the true one: what is unknown of all candidates alike, such as how good a category
    is that no trial had, moves them together, and is explored no more often than it may be worth it.

    From few trials it says more than trees do: what it expects changes smoothly from what was seen. Scores are first
    made to look normal by a power transform, since those of bad trials lie far apart and those of good ones close by.

    Source: a process over parameters and training time, arXiv:1406.3896 (without its kernel for curves); Matern 5/2 and
    a length scale for each parameter, arXiv:1206.2944; the power transform as in HEBO, arXiv:2012.03826.
    """

    # What a proposal costs grows with the cube of their number, and with that of the rows.
    num_anywhere = 200
    news = 0.02

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        from threadpoolctl import ThreadpoolController

        super().__init__(*args, **kwargs)
        self._process: GaussianProcess | None = None
        self._rows_at_fit = 0
        self._libraries = ThreadpoolController()

    def _plausible(self, features: Features, scores: Values, asked: Features, *, draws: int) -> Values:
        # Trials train on the other cores.
        with self._libraries.limit(limits=1, user_api="blas"):
            rows, asked_rows = (_with_epoch_in_1(each, seen=features) for each in (features, asked))
            return self._drawn(rows, _like_normal(scores), asked_rows, draws=draws)

    def _drawn(self, rows: Values, values: Values, asked: Values, *, draws: int) -> Values:
        num_rows = len(rows)
        if num_rows > _MOST_ROWS:
            kept = self._kept(values)
            rows, values = rows[kept], values[kept]
        if self._process is None:
            self._process = GaussianProcess(rows.shape[1])
        if num_rows >= _REFIT * self._rows_at_fit:
            self._process.fit(rows, values)
            self._rows_at_fit = num_rows
        self._process.learn(rows, values)
        return self._process.draw(asked, self._seeds, draws=draws)

    def _kept(self, values: Values) -> Any:
        """Places of some rows: the best ones, and some of the others."""
        order, half = np.argsort(-values, kind="stable"), _MOST_ROWS // 2
        return np.concatenate([order[:half], self._seeds.permutation(order[half:])[: _MOST_ROWS - half]])


def _with_epoch_in_1(rows: Features, *, seen: Features) -> Values:
    """Rows with the logarithm of the epoch as a part of the last one seen: all other features are in [0, 1] too."""
    scaled = rows.astype(np.float64)
    scaled[:, -1] /= max(1.0, float(seen[:, -1].max()))
    return scaled


def _like_normal(scores: Values) -> Values:
    """Scores (N,), made to look as if drawn from a normal distribution of mean 0 and variance 1; in the same order.

    Source: Yeo and Johnson, A new family of power transformations, 2000, doi:10.1093/biomet/87.4.954.
    """
    from sklearn.preprocessing import power_transform

    spread = scores.std()
    if not spread > 0:
        return np.zeros_like(scores)
    standard = (scores - scores.mean()) / spread
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        like_normal: Values = power_transform(standard[:, None])[:, 0]
    return like_normal if np.isfinite(like_normal).all() and like_normal.std() > 0 else standard
