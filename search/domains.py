"""Which values may one parameter take? A domain refuses bad bounds at construction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, Protocol

from pydantic import Field, ValidationError, model_validator

from search.config_errors import Problem, found, problems_of, raise_problems
from search.domain_options import Options
from search.scalars import OneScalar, Scalar, StrictBool, StrictFloat, StrictInt, same, word
from trainables.hyperparameters import Frozen
from trainables.nearest import nearest

_MAX_STEPS = 10**9  # beyond this a grid is a continuum for every purpose


class Suggester(Protocol):
    """The part of `optuna.Trial` that a space uses."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number in [low, high]."""
        ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number in [low, high]."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """One of the choices."""
        ...


class _Range(Frozen):
    """What float and int domains share; `low` and `high` both belong to the domain."""

    low: float
    high: float
    log: StrictBool = Field(default=False, description="Sample the logarithm uniformly, for scales such as lr.")
    step: float | None = None

    @model_validator(mode="after")
    def _sound(self) -> _Range:
        raise_problems(type(self).__name__, self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        if self.low >= self.high:
            remedy = "write the one value instead of a domain" if self.low == self.high else "exchange them"
            yield Problem(("low",), f"must be below high, found low {self.low} and high {self.high}; {remedy}")
            return
        if self.log and self.low <= 0:
            # Small against high, and never above it.
            example = 1 if isinstance(self, IntDomain) else min(1e-5, self.high / 100)
            value = f"{Decimal(repr(example)):f}"
            yield Problem(("low",), f"log scale needs low > 0, found {self.low:g}; set low: {value} or log: false")
        if self.step is None:
            return
        if self.log:
            yield Problem(
                ("step",), f"cannot go with log: true, found step {self.step}; remove step or write log: false"
            )
        if self.step <= 0:
            yield Problem(("step",), f"must be above 0, found {self.step}; write a step such as {self._example_step()}")
            return
        low, high, step = (Decimal(repr(value)) for value in (self.low, self.high, self.step))
        if high - low > _MAX_STEPS * step:
            yield Problem(("step",), f"is too small for the range, found {self.step:g}; remove step to search it all")
        elif (high - low) % step != 0:
            whole = (high - low) // step
            fitting = " or ".join(f"{_plain(low + count * step)}" for count in (whole, whole + 1) if count > 0)
            yield Problem(
                ("step",),
                f"high - low must be a multiple of step, found step {self.step} from {self.low} to {self.high}; "
                f"set high: {fitting}, or another step",
            )

    def _example_step(self) -> str:
        return "1" if isinstance(self, IntDomain) else f"{(self.high - self.low) / 10:g}"

    def _outside(self, value: Scalar) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return f"must be a number from {self.low:g} to {self.high:g}, found {found(value)}; write such a number"
        if not self.low <= value <= self.high:
            return (
                f"must lie from {self.low:g} to {self.high:g}, found {found(value)}; "
                "write a value of the domain, or widen the domain"
            )
        return None

    def describe(self) -> str:
        """The domain on one line, for a person."""
        step = f", step {self.step:g}" if self.step is not None else ""
        return f"{self.low:g} … {self.high:g}{', log' if self.log else ''}{step}"


class _Searched(Options):
    """What every domain can do besides its own values."""

    @model_validator(mode="after")
    def _expects_its_own_value(self) -> _Searched:
        text = None if self.prior is None else self.problem(self.prior.value)
        if text is not None:
            raise_problems(type(self).__name__, [Problem(("prior", "value"), text)])
        return self

    def problem(self, value: Scalar) -> str | None:
        """Why a value is not of this domain; None when it is."""
        raise NotImplementedError


class FloatDomain(_Searched, _Range):
    """Numbers from low to high."""

    type: Literal["float"]
    low: StrictFloat = Field(description="Smallest value, included.")
    high: StrictFloat = Field(description="Largest value, included.")
    step: StrictFloat | None = Field(default=None, description="Only low, low + step, low + 2 step, ... up to high.")

    @property
    def num_values(self) -> int | None:
        """How many values there are; None for a continuum."""
        if self.step is None:
            return None
        low, high, step = (Decimal(repr(value)) for value in (self.low, self.high, self.step))
        return int((high - low) / step) + 1

    def grid(self) -> Iterator[float]:
        """All values in increasing order; only for domains with a step."""
        for index in range(self.num_values or 0):
            yield self._at(index)

    def suggest(self, trial: Suggester, name: str) -> float:
        """A value chosen by Optuna, the same number that `grid` yields for it."""
        value = trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)
        return value if self.step is None else self._at(self._index(value))

    def problem(self, value: Scalar) -> str | None:
        """Why a value is not of this domain; None when it is."""
        outside = self._outside(value)
        if outside or self.step is None:
            return outside
        assert isinstance(value, int | float)
        nearest = self._at(self._index(value))
        if math.isclose(value, nearest, rel_tol=1e-9, abs_tol=1e-12):
            return None
        return f"must be a multiple of step {self.step:g} above {self.low:g}, found {value:g}; write {nearest:g}"

    def _index(self, value: float) -> int:
        assert self.step is not None
        return round((value - self.low) / self.step)

    def _at(self, index: int) -> float:
        # In decimal, so that 0.1 + 2 * 0.1 is the 0.3 that a person wrote.
        return float(Decimal(repr(self.low)) + index * Decimal(repr(self.step)))


class IntDomain(_Searched, _Range):
    """Whole numbers from low to high."""

    type: Literal["int"]
    low: StrictInt = Field(description="Smallest value, included.")
    high: StrictInt = Field(description="Largest value, included.")
    step: StrictInt | None = Field(default=None, description="Only low, low + step, low + 2 step, ... up to high.")

    @property
    def num_values(self) -> int:
        """How many values there are."""
        return (self.high - self.low) // self._range.step + 1

    def grid(self) -> Iterator[int]:
        """All values in increasing order."""
        yield from self._range

    def suggest(self, trial: Suggester, name: str) -> int:
        """A value chosen by Optuna."""
        return trial.suggest_int(name, self.low, self.high, step=self.step or 1, log=self.log)

    def problem(self, value: Scalar) -> str | None:
        """Why a value is not of this domain; None when it is."""
        outside = self._outside(value)
        if outside:
            return outside
        assert isinstance(value, int | float)
        if value in self._range:  # 2.0 is: a float field may have an int domain
            return None
        nearest = self.low + round((value - self.low) / self._range.step) * self._range.step
        return f"must be a whole number of the domain {self.describe()}, found {value}; write {nearest}"

    @property
    def _range(self) -> range:
        return range(self.low, self.high + 1, self.step or 1)


class _Values(Frozen):
    values: tuple[OneScalar, ...] = Field(strict=False, min_length=1, description="The values to choose from.")


class CategoricalDomain(_Searched, _Values):
    """A list of values without order."""

    type: Literal["categorical"]

    @model_validator(mode="after")
    def _no_duplicates(self) -> CategoricalDomain:
        raise_problems(
            type(self).__name__,
            (
                Problem(("values", index), f"written twice, found {found(value)} again; remove one")
                for index, value in enumerate(self.values)
                if any(same(value, earlier) for earlier in self.values[:index])
            ),
        )
        return self

    @property
    def num_values(self) -> int:
        """How many values there are."""
        return len(self.values)

    def grid(self) -> Iterator[Scalar]:
        """All values in the order written."""
        yield from self.values

    def suggest(self, trial: Suggester, name: str) -> Scalar:
        """A value chosen by Optuna."""
        return trial.suggest_categorical(name, self.values)

    def problem(self, value: Scalar) -> str | None:
        """Why a value is not of this domain; None when it is."""
        if any(same(value, choice) for choice in self.values):
            return None
        return f"must be one of {self.describe()}, found {found(value)}; write one of these, or add it to values"

    def describe(self) -> str:
        """The domain on one line, for a person."""
        return ", ".join(word(value) for value in self.values)


Domain = FloatDomain | IntDomain | CategoricalDomain
DOMAINS: dict[str, type[Domain]] = {"float": FloatDomain, "int": IntDomain, "categorical": CategoricalDomain}
# A parameter of the space: searched in a domain, or fixed to one value.
Param = Domain | Scalar


def parse_domain(raw: Mapping[str, Any]) -> tuple[Domain | None, list[Problem]]:
    """A domain from plain data whose `type` is one of `DOMAINS`, or what is wrong with it."""
    model = DOMAINS[raw["type"]]
    try:
        return model.model_validate(raw), []
    except ValidationError as error:
        problems = problems_of(error, model)
    # Where an item of a list is wrong, pydantic may add that the list is too short without it.
    inside = {problem.loc[:-1] for problem in problems if len(problem.loc) > 1}
    return None, [problem for problem in problems if problem.loc not in inside]


def no_type(raw: Mapping[Any, Any], kinds: Iterable[str]) -> Problem:
    """What is wrong with a mapping without `type`, which a mistyped key may stand for."""
    for key in raw:
        if nearest(str(key), ["type"]):
            return Problem((str(key),), f"unknown key, found {key!r}; write type")
    return Problem(("type",), f"is missing; add type: {' or type: '.join(kinds)}")


def dump_param(param: Param) -> Any:
    """A parameter as it may be written in a file: only the keys of a domain that say something."""
    if not isinstance(param, Domain):
        return param
    dumped = param.model_dump()
    options = {key: dumped.pop(key) for key in ("step", *Options.model_fields) if key in dumped}
    said = {key: value for key, value in options.items() if value not in (None, ())}
    return {"type": dumped.pop("type"), **dumped, **said}


def param_problem(param: Param, value: Scalar) -> str | None:
    """Why a parameter cannot take a value; None when it can."""
    return param.problem(value) if isinstance(param, Domain) else fixed_problem(value, param)


def fixed_problem(value: Scalar, fixed: Scalar) -> str | None:
    """Why a value cannot stand for a fixed parameter; None when it repeats the same value."""
    if same(value, fixed):
        return None
    return f"is fixed to {word(fixed)} by the space, found {found(value)}; remove it, or give the space a domain"


def _plain(value: Decimal) -> str:
    return f"{value.normalize():f}"
