"""Where will a learning curve end? Saturating shapes fitted by least squares, checked on curves that are known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

Array = NDArray[np.float64]

# Shapes a + b * phi(epoch): nothing more to come, power laws, and exponentials over the length of a trial. They cover
# the families that learning curves were found to follow (arXiv:2103.10948, IJCAI 2015 by Domhan et al.), and for each
# the best a and b are a linear function of the curve: no iteration, and all curves at once.
_POWERS = (0.25, 0.5, 1.0, 2.0)
_RATES = (1.0, 2.0, 4.0, 8.0, 16.0)
_RIDGE = 1e-3  # keeps b finite while a curve has one or two epochs

# The smallest deviation of errors that is believed, as a fraction of the spread of the known ends.
_LEAST_DEVIATION = 1e-3
# The noise of a curve below which shapes are not told apart, as such a fraction too.
_NOISE = 0.01


@dataclass(frozen=True)
class Calibration:
    """How far extrapolations from one epoch were off, on curves whose end is known."""

    count: int
    bias: float
    deviation: float


def calibrate(curves: Array, ends: Array, *, max_epochs: int, upper: float) -> Calibration:
    """Extrapolates known curves from the epochs given and compares with where they ended.

    Args:
        curves: best values so far, higher being better, (N, epochs), N at least 2.
        ends: the best value each reached in the end, (N,).
        upper: no value is above this.
    """
    errors = ends - _extrapolate(curves, max_epochs=max_epochs, upper=upper, scale=_spread(ends))[0]
    deviation = max(float(errors.std(ddof=1)), _LEAST_DEVIATION * _spread(ends))
    return Calibration(count=len(ends), bias=float(errors.mean()), deviation=deviation)


def chance_to_beat(
    incumbent: float, curve: Array, calibration: Calibration, *, ends: Array, max_epochs: int, upper: float
) -> float:
    """The probability that a curve ends above the incumbent.

    The prediction is Student's t around the extrapolation, shifted and widened by how far extrapolations of other
    curves from the same epoch were off, and by how far the shapes disagree on this one.

    Args:
        curve: best values so far, higher being better, (epochs,).
    """
    predicted, disagreement = _extrapolate(curve[None], max_epochs=max_epochs, upper=upper, scale=_spread(ends))
    variance = calibration.deviation**2 * (1 + 1 / calibration.count) + float(disagreement[0]) ** 2
    gap = incumbent - (float(predicted[0]) + calibration.bias)
    return 1.0 - float(stdtr(calibration.count - 1, gap / math.sqrt(variance)))


def _extrapolate(curves: Array, *, max_epochs: int, upper: float, scale: float) -> tuple[Array, Array]:
    """The expected value of each curve at max_epochs, and the deviation between the shapes; (N,) each.

    The better a shape fits the epochs given, the more it counts, as in Bayesian averaging over models of equal size.
    """
    num_epochs = curves.shape[1]
    solve, shapes, at_end = _shapes(num_epochs, max_epochs)
    coefficients = np.einsum("mke,ne->nmk", solve, curves)
    fitted = coefficients[..., :1] + coefficients[..., 1:] * shapes
    residuals = ((fitted - curves[:, None]) ** 2 * _weights(num_epochs)).sum(axis=2)
    log_weights = -0.5 * num_epochs * np.log(residuals + num_epochs * (_NOISE * scale) ** 2)
    weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    # A best value never falls, and a metric has a bound.
    ends = np.clip(coefficients[..., 0] + coefficients[..., 1] * at_end, curves[:, -1:], upper)
    mean = (weights * ends).sum(axis=1)
    return mean, np.sqrt((weights * (ends - mean[:, None]) ** 2).sum(axis=1))


@lru_cache(maxsize=1024)
def _shapes(num_epochs: int, max_epochs: int) -> tuple[Array, Array, Array]:
    """For each shape: the matrix that fits a and b, (M, 2, epochs); phi, (M, epochs); phi at max_epochs, (M,)."""
    epochs = np.append(np.arange(1, num_epochs + 1), max_epochs).astype(float)
    phi = np.stack(
        [
            np.zeros_like(epochs),
            *(epochs**-power for power in _POWERS),
            *(np.exp(-rate * epochs / max_epochs) for rate in _RATES),
        ]
    )
    weights, ridge = _weights(num_epochs), np.diag([0.0, _RIDGE])
    solved = []
    for row in phi[:, :-1]:
        design = np.stack([np.ones(num_epochs), row], axis=1)
        solved.append(np.linalg.solve(design.T * weights @ design + ridge, design.T * weights))
    return np.stack(solved), phi[:, :-1], phi[:, -1]


def _weights(num_epochs: int) -> Array:
    """Later epochs say more about the end."""
    return np.arange(1, num_epochs + 1) / num_epochs


def _spread(ends: Array) -> float:
    return max(float(np.ptp(ends)), 1e-6)
