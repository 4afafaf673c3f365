"""What does a Gaussian process say of some rows? With a length scale for every feature, all fitted to what was seen."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

_ROOT_5 = math.sqrt(5)

# Added to the variance of every row, so that equal rows do not make the matrix singular.
_JITTER = 1e-6

# Where the logarithms of length scale, variance of the signal and variance of the noise are expected, and how surely:
# normal priors, for features in [0, 1] and values of mean 0 and variance 1.
_EXPECTED = (math.log(0.8), 0.0, math.log(1e-2))
_SURE = (1.0, 1.0, 1.5)

_FIT_STEPS = 30


class GaussianProcess:
    """Regression with a Matern 5/2 kernel and one length scale for each feature.

    Its hyperparameters are the most probable ones given the values and broad priors. They are kept from one `learn` to
    the next, since fitting them costs more than all else.

    Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapters 2, 4.2 and 5.4.
    """

    def __init__(self, num_features: int) -> None:
        self._logs = _of_each(_EXPECTED, num_features)
        self._rows = np.zeros((0, num_features))
        self._factor: Values = np.zeros((0, 0))
        self._weights: Values = np.zeros(0)

    def fit(self, rows: Values, values: Values) -> None:
        """Adapts the hyperparameters, beginning from the last ones.

        Args:
            rows: (S, F), in [0, 1].
            values: (S,), of mean 0 and variance 1.
        """
        from scipy.optimize import minimize  # takes a third of a second to import

        found = minimize(
            _misfit, self._logs, args=(rows, values), jac=True, method="L-BFGS-B", options={"maxiter": _FIT_STEPS}
        )
        if np.isfinite(found.x).all():
            self._logs = found.x

    def learn(self, rows: Values, values: Values) -> None:
        """Takes up what was seen, in place of what it took up before."""
        self._rows = rows
        self._factor = _triangle(_covariance(rows, self._logs))
        self._weights = _solve(self._factor, values)

    def predict(self, asked: Values) -> tuple[Values, Values]:
        """Means (N,) and covariances (N, N) of the function at rows (N, F), without the noise of values."""
        from scipy.linalg import solve_triangular

        scales, signal, _ = _hyperparameters(self._logs)
        asked = asked / scales
        between = signal * _matern(_distances(asked, self._rows / scales))
        known = solve_triangular(self._factor, between.T, lower=True, check_finite=False)
        return between @ self._weights, signal * _matern(_distances(asked, asked)) - known.T @ known

    def draw(self, asked: Values, rng: np.random.Generator, *, draws: int) -> Values:
        """Functions that are possible given what was seen, at rows (N, F): (D, N)."""
        means, covariances = self.predict(asked)
        drawn: Values = means + rng.standard_normal((draws, len(means))) @ _root(covariances).T
        return drawn


def _root(covariances: Values) -> Values:
    """A matrix (N, N) whose square they are, nearly: rows that are alike make them singular."""
    added = _JITTER * float(np.diag(covariances).max())
    while True:
        try:
            return _triangle(covariances + max(added, _JITTER**2) * np.eye(len(covariances)))
        except np.linalg.LinAlgError:
            added = max(10 * added, _JITTER**2)


def _hyperparameters(logs: Values) -> tuple[Values, float, float]:
    """Length scales (F,), variance of the signal and variance of the noise."""
    return np.exp(logs[:-2]), math.exp(logs[-2]), math.exp(logs[-1])


def _distances(left: Values, right: Values) -> Values:
    squares = (left * left).sum(axis=1)[:, None] + (right * right).sum(axis=1)[None] - 2 * left @ right.T
    distances: Values = np.sqrt(np.maximum(0.0, squares) + 1e-12)  # the slope of the root at 0 is infinite
    return distances


def _matern(distances: Values) -> Values:
    correlation: Values = (1 + _ROOT_5 * distances + 5 / 3 * distances**2) * np.exp(-_ROOT_5 * distances)
    return correlation


def _covariance(rows: Values, logs: Values) -> Values:
    scales, signal, noise = _hyperparameters(logs)
    covariance: Values = signal * _matern(_distances(rows / scales, rows / scales))
    return _with_noise(covariance, noise)


def _with_noise(covariance: Values, noise: float) -> Values:
    return covariance + (noise + _JITTER) * np.eye(len(covariance))


def _triangle(covariance: Values) -> Values:
    factor: Values = np.linalg.cholesky(covariance).astype(np.float64, copy=False)
    return factor


def _solve(factor: Values, right: Values) -> Values:
    from scipy.linalg import cho_solve

    solved: Values = cho_solve((factor, True), right, check_finite=False)
    return solved


def _inverse(factor: Values) -> Values:
    """Of the matrix (S, S) with that lower triangle; several times faster than solving for its columns."""
    from scipy.linalg.lapack import dpotri

    inverse: Values = np.tril(dpotri(factor, lower=1)[0])
    return inverse + np.tril(inverse, -1).T


def _misfit(logs: Values, rows: Values, values: Values) -> tuple[float, Values]:
    """Negative logarithm of the posterior density of the hyperparameters, up to a constant, and its gradient (F + 2,).

    Source: Rasmussen and Williams, equations 5.8 and 5.9.
    """
    scales, signal, noise = _hyperparameters(logs)
    scaled = rows / scales
    distances = _distances(scaled, scaled)
    decay = np.exp(-_ROOT_5 * distances)
    shared = signal * (1 + _ROOT_5 * distances + 5 / 3 * distances**2) * decay
    try:
        factor = _triangle(_with_noise(shared, noise))
    except np.linalg.LinAlgError:
        return 1e10, np.zeros_like(logs)
    weights = _solve(factor, values)
    pull = np.outer(weights, weights) - _inverse(factor)
    # Of each length scale: the slope of the kernel along its squared distance, of which the rows' share is summed
    # without an (S, S) matrix for every feature.
    slopes = pull * (signal * 5 / 3 * (1 + _ROOT_5 * distances) * decay)
    by_scale = -((scaled * scaled).T @ slopes.sum(axis=1) - ((slopes @ scaled) * scaled).sum(axis=0))
    by_noise = -0.5 * noise * np.trace(pull)
    gradient = np.concatenate([by_scale, [-0.5 * (pull * shared).sum(), by_noise]])
    away, sure = logs - _of_each(_EXPECTED, len(scales)), _of_each(_SURE, len(scales))
    misfit = 0.5 * values @ weights + np.log(np.diag(factor)).sum() + 0.5 * (away / sure) @ (away / sure)
    return float(misfit), gradient + away / sure**2


def _of_each(scale_signal_noise: tuple[float, float, float], num_features: int) -> Values:
    """One number for the length scale of every feature, and those for signal and noise, (F + 2,)."""
    return np.repeat(scale_signal_noise, (num_features, 1, 1))
