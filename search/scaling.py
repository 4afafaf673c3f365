"""Which values depend on others by a rule? `scaled_by`: searched for one batch size, trained at another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from search.config_errors import Problem, unknown_key
from search.domains import CategoricalDomain, Domain, FloatDomain, IntDomain, Param
from search.parameters import check_value, kind_of
from search.scalars import Scalar
from trainables.hyperparameters import Hyperparameters


def scaling_problems(params: Mapping[str, Param]) -> Iterator[Problem]:
    """Scaled parameters whose other parameter does not fit, or whose values leave the field's range at some end."""
    for name, param in params.items():
        if isinstance(param, Domain) and param.scaled_by is not None and name in Hyperparameters.model_fields:
            text = _scaling_problem(name, param, params)
            if text is not None:
                yield Problem(("space", name, "scaled_by"), text)


def _scaling_problem(name: str, domain: Domain, params: Mapping[str, Param]) -> str | None:
    assert domain.scaled_by is not None
    other = domain.scaled_by.parameter
    if kind_of(name) is not float:
        return f"needs a parameter that takes any number, found {name}; remove it"
    if other not in Hyperparameters.model_fields:
        return unknown_key(other, Hyperparameters.model_fields).replace("unknown key", "unknown parameter", 1)
    if other == name or kind_of(other) not in (int, float):
        return f"must name another parameter that is a number, found {other!r}; write batch_size"
    by = params.get(other, Hyperparameters.model_fields[other].default)
    if isinstance(by, Domain) and by.scaled_by is not None:
        return f"must not name a parameter that is scaled itself, found {other!r}; write batch_size"
    for value in _ends(domain):
        for size in _ends(by):
            scaled = value * domain.scaled_by.factor(size)
            _, text = check_value(name, scaled)
            if text is not None:
                shown = f"{value:g} with {other} {size:g} becomes {scaled:g}"
                problem = text.split(", found")[0]
                return (
                    f"leaves the range of {name}: it {problem}, found {shown}; narrow the domain, or change reference"
                )
    return None


def _ends(param: Any) -> tuple[float, ...]:
    """The smallest and the largest number of a parameter."""
    values: tuple[Scalar, ...] = (param,)
    if isinstance(param, CategoricalDomain):
        values = param.values
    elif isinstance(param, FloatDomain | IntDomain):
        values = (param.low, param.high)
    numbers = [value for value in values if isinstance(value, int | float)]
    return (min(numbers), max(numbers)) if numbers else ()


def scaled(params: Mapping[str, Param], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a trial, with those that are scaled by others in place of the searched ones.

    Args:
        values: searched and fixed values of the trial; another parameter without one has its default.
    """
    result = dict(values)
    for name, param in params.items():
        value = values.get(name)
        if isinstance(param, Domain) and param.scaled_by is not None and value is not None:
            other = param.scaled_by.parameter
            size = values.get(other, Hyperparameters.model_fields[other].default)
            result[name] = value * param.scaled_by.factor(size)
    return result
