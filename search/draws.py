"""How is a trial drawn without Optuna? Uniformly in each domain, or at given values."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from search.scalars import Scalar


class UniformDraw:
    """Draws each value uniformly (in the logarithm where the domain says so); a `Suggester` that needs no study."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number in [low, high]."""
        del name
        if step is not None:
            return low + self._rng.randint(0, round((high - low) / step)) * step
        if log:
            return min(high, max(low, math.exp(self._rng.uniform(math.log(low), math.log(high)))))
        return self._rng.uniform(low, high)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number in [low, high]."""
        del name
        if log:
            drawn = math.exp(self._rng.uniform(math.log(low - 0.5), math.log(high + 0.5)))
            return min(high, max(low, round(drawn)))
        return low + self._rng.randint(0, (high - low) // step) * step

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """One of the choices."""
        del name
        return choices[self._rng.randrange(len(choices))]


class GivenDraw:
    """Suggests given values, and of domains without one the lowest or first value; a `Suggester` too."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """The number given, or `low`."""
        del high, step, log
        return float(self._given.get(name, low))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """The whole number given, or `low`."""
        del high, step, log
        return int(self._given.get(name, low))

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """The value given, or the first choice."""
        value: Scalar = self._given.get(name, choices[0])
        return value
