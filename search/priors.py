"""What does a person expect to be good, and how does a search begin with it? Priors become starting points."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from search.domains import CategoricalDomain, Domain
from search.scalars import Scalar, same

# Share of the starting trials in which a parameter is drawn near its prior; the rest are the sampler's own.
SHARES = {"low": 0.25, "medium": 0.5, "high": 0.75}
# Standard deviation of such a draw, as a fraction of the domain (of its logarithm where it is searched on that scale).
_DEVIATION = 0.25


def prior_points(domains: Mapping[str, Domain], *, trials: int, seed: int) -> list[dict[str, Any]]:
    """Starting points that follow the priors of a space: the priors themselves, then draws near them.

    In each later point every parameter with a prior is drawn near it with the probability of its confidence, and
    left to the sampler otherwise; points that would leave everything to the sampler are left out. After the starting
    trials a prior has no weight of its own: what it is worth has been seen by then, so that a wrong one costs no
    more than them.

    Args:
        trials: starting trials, the first included.

    Source: the mixture of prior, random and later guided sampling of PriorBand, arXiv:2306.12370; normal
        perturbation with a deviation of a quarter of the domain as there.
    """
    priors = {name: domain for name, domain in domains.items() if domain.prior is not None}
    if not priors:
        return []
    rng = random.Random(f"{seed} priors")
    points = [{name: _expected(domain) for name, domain in priors.items()}]
    for _ in range(1, trials):
        point = {
            name: _near(domain, rng)
            for name, domain in priors.items()
            if domain.prior is not None and rng.random() < SHARES[domain.prior.confidence]
        }
        points += [point] if point else []
    return points


def _expected(domain: Domain) -> Scalar:
    """The prior's value as the domain itself holds it."""
    assert domain.prior is not None
    if isinstance(domain, CategoricalDomain):
        return next(value for value in domain.values if same(value, domain.prior.value))
    value = domain.prior.value
    assert isinstance(value, int | float)
    return int(value) if domain.type == "int" else float(value)


def _near(domain: Domain, rng: random.Random) -> Scalar:
    """A value near the prior's: of categories that one itself."""
    expected = _expected(domain)
    if isinstance(domain, CategoricalDomain):
        return expected
    assert isinstance(expected, int | float)
    scale, back = (math.log, math.exp) if domain.log else (float, float)
    low, high = scale(domain.low), scale(domain.high)
    drawn = back(_truncated_normal(scale(expected), _DEVIATION * (high - low), low=low, high=high, rng=rng))
    step = domain.step or (1 if domain.type == "int" else None)
    if step is None:
        return min(domain.high, max(domain.low, drawn))
    index = round((drawn - domain.low) / step)
    value = Decimal(repr(domain.low)) + index * Decimal(repr(step))
    return int(value) if domain.type == "int" else float(value)


def _truncated_normal(mean: float, deviation: float, *, low: float, high: float, rng: random.Random) -> float:
    while True:  # the mean lies inside, so that at worst about half of the draws are refused
        value = rng.gauss(mean, deviation)
        if low <= value <= high:
            return value
