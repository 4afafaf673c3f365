"""How is a trial drawn without Optuna? Uniformly in each domain, near given values, or at them."""

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


class NearDraw:
    """Draws near given values, each parameter within a part of its domain; a `Suggester` too.

    Args:
        reach: the farthest that a number moves, as a part of its domain, in (0, 1].
        anew: chance that a parameter is drawn from its whole domain, in [0, 1]; one without a given value always is.
    """

    def __init__(self, given: Mapping[str, Any], *, rng: random.Random, reach: float = 0.1, anew: float = 0.1) -> None:
        self._given = given
        self._rng = rng
        self._reach = reach
        self._anew = anew
        self._uniform = UniformDraw(rng)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number in [low, high]."""
        if self._is_drawn_anew(name):
            return self._uniform.suggest_float(name, low, high, step=step, log=log)
        moved = self._moved(float(self._given[name]), low, high, log=log)
        if step is None:
            return moved
        return low + min(math.floor((high - low) / step + 1e-9), round((moved - low) / step)) * step

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number in [low, high]."""
        if self._is_drawn_anew(name):
            return self._uniform.suggest_int(name, low, high, step=step, log=log)
        moved = self._moved(float(self._given[name]), low, high, log=log)
        return low + min((high - low) // step, round((moved - low) / step)) * step

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """One of the choices."""
        if self._is_drawn_anew(name):
            return self._uniform.suggest_categorical(name, choices)
        value: Scalar = self._given[name]
        return value

    def _is_drawn_anew(self, name: str) -> bool:
        return name not in self._given or self._rng.random() < self._anew

    def _moved(self, value: float, low: float, high: float, *, log: bool) -> float:
        if log:
            return math.exp(self._moved(math.log(value), math.log(low), math.log(high), log=False))
        away = self._reach * (high - low)
        return self._rng.uniform(max(low, value - away), min(high, value + away))


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
