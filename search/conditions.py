"""When does a parameter exist? Only where it has an effect and where its `when` holds; parents are decided first."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from typing import Any

from search.domains import CategoricalDomain, Domain, Param
from search.matching import Between, Match, all_in_words, matches
from search.scalars import Scalar
from trainables.conditions import CONDITIONS, Condition, has_effect
from trainables.hyperparameters import Hyperparameters

# Beyond so many combinations of its ancestors a parameter is taken to be reachable.
_MAX_TRIED = 20_000


def when_of(param: Param) -> dict[str, Match]:
    """What a parameter's own `when` asks of others."""
    return (param.when or {}) if isinstance(param, Domain) else {}


def parents_of(name: str, param: Param) -> tuple[str, ...]:
    """The parameters on which the existence of one depends, in the space or not."""
    implicit = CONDITIONS[name].parents if name in CONDITIONS else ()
    return tuple(dict.fromkeys([*implicit, *when_of(param)]))


def exists(name: str, param: Param, chosen: Mapping[str, Any]) -> bool:
    """Whether a parameter is part of a trial.

    Args:
        chosen: what is decided already, fixed values included; of the parents, those left out do not exist.
    """
    return existence(name, param, chosen, undecided=()) is True


def existence(name: str, param: Param, chosen: Mapping[str, Any], *, undecided: Collection[str]) -> bool | None:
    """The same where some parameters have no value yet; None where these decide.

    Args:
        undecided: parameters that may come to have any of their values.
    """
    answers: list[bool | None] = [
        None if parent in undecided else parent in chosen and matches(match, chosen[parent])
        for parent, match in when_of(param).items()
    ]
    implicit = CONDITIONS[name].parents if name in CONDITIONS else ()
    answers.append(None if any(parent in undecided for parent in implicit) else has_effect(name, chosen))
    return False if False in answers else None if None in answers else True


def in_order(params: Mapping[str, Param]) -> dict[str, Param]:
    """The parameters with parents before children, else as written.

    Raises:
        ValueError: if a parameter depends on itself; names the circle.
    """
    ordered: dict[str, Param] = {}

    def add(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = " -> ".join([*path[path.index(name) :], name])
            raise ValueError(f"depends on itself, found {circle}; remove one `when` of the circle")
        if name in ordered:
            return
        for parent in parents_of(name, params[name]):
            if parent in params:
                add(parent, (*path, name))
        ordered[name] = params[name]

    for name in params:
        add(name, ())
    return ordered


def is_reachable(name: str, params: Mapping[str, Param]) -> bool:
    """Whether some choice of the others lets a parameter exist.

    Ranges are tried at their ends and at the values that conditions mention.

    Args:
        params: the whole space, parents before children.
    """
    above = ancestors(name, params)
    steps = [each for each in params if each in above]
    tried = 0

    def reach(index: int, chosen: dict[str, Any]) -> bool:
        nonlocal tried
        tried += 1
        if index == len(steps):
            return exists(name, params[name], chosen)
        step = steps[index]
        if not exists(step, params[step], chosen) and isinstance(params[step], Domain):
            return reach(index + 1, chosen)
        values = _representatives(step, params)
        return any(tried > _MAX_TRIED or reach(index + 1, {**chosen, step: value}) for value in values)

    return reach(0, {})


def ancestors(name: str, params: Mapping[str, Param]) -> set[str]:
    """The parameters of the space on which the existence of one depends, through others too."""
    found: set[str] = set()
    waiting = [parent for parent in parents_of(name, params[name]) if parent in params]
    while waiting:
        parent = waiting.pop()
        if parent not in found:
            found.add(parent)
            waiting += [each for each in parents_of(parent, params[parent]) if each in params]
    return found


def _representatives(name: str, params: Mapping[str, Param]) -> list[Scalar]:
    param = params[name]
    if not isinstance(param, Domain):
        return [param]
    if isinstance(param, CategoricalDomain):
        return list(param.values)
    mentioned = [when_of(other)[name] for other in params.values() if name in when_of(other)]
    return [param.low, param.high, *(value for match in mentioned for value in examples(match, param))]


def examples(match: Match, param: Param) -> list[Scalar]:
    """Values of a parameter that a condition means: of a list all, of a range some; none if there are none."""
    if not isinstance(param, Domain):
        return [param] if matches(match, param) else []
    if isinstance(match, tuple):
        return [value for value in match if param.problem(value) is None]
    if isinstance(param, CategoricalDomain):
        return [value for value in param.values if matches(match, value)]
    inside: Iterator[Scalar] = chain(_inside(match, param.low, param.high), _first_on_grid(match, param))
    return [value for value in inside if param.problem(value) is None][:1]


def _inside(match: Between, low: float, high: float) -> Iterator[float]:
    bottom = low if match.above is None else max(low, match.above)
    top = high if match.below is None else min(high, match.below)
    for value in (low, high, (bottom + top) / 2):
        if matches(match, value):
            yield value


def _first_on_grid(match: Between, param: Domain) -> Iterator[Scalar]:
    """The first values of a stepped range beyond the lower bound; found without walking the range."""
    assert not isinstance(param, CategoricalDomain)
    step = param.step or (1 if param.type == "int" else 0)
    if not step or match.above is None:
        return
    index = int((match.above - param.low) // step)
    for each in (index, index + 1, index + 2):
        value = param.low + each * step
        if matches(match, value):
            yield int(value) if param.type == "int" else value


def effect_problem(name: str, params: Mapping[str, Param]) -> str | None:
    """Why a parameter, fixed or searched, means nothing in any trial; None when it means something in one.

    Args:
        params: the whole space, parents before children.
    """
    if is_reachable(name, params):
        return None
    asked = when_of(params[name])
    condition = CONDITIONS.get(name)
    told: list[str] = []
    if condition is not None:
        told.append(f"has an effect only where {condition.words}")
    if asked:
        told.append(f"{'its' if told else 'has a'} `when` that asks for {all_in_words(asked.items())}")
    parents = parents_of(name, params[name])
    present = ", ".join(f"{parent}: {_shown(parent, params)}" for parent in parents)
    remedy = "change `when`, or remove the parameter" if asked else "remove it"
    return f"{', and '.join(told)}, found {present}; {remedy}"


def _shown(parent: str, params: Mapping[str, Param]) -> str:
    if parent in params:
        param = params[parent]
        return param.describe() if isinstance(param, Domain) else str(param)
    field = Hyperparameters.model_fields.get(parent)
    return f"{field.default} (its default)" if field is not None else "nothing"


def existence_in_words(name: str, params: Mapping[str, Param]) -> str | None:
    """Where a parameter exists, for a person; None where it exists in every trial."""
    searched = {each for each, param in params.items() if isinstance(param, Domain)}
    parts: list[str] = []
    condition = CONDITIONS.get(name)
    if condition is not None and searched.intersection(condition.parents) and not _always(condition, params):
        parts.append(condition.words)
    own = [(parent, match) for parent, match in when_of(params[name]).items() if parent in searched]
    parts += [all_in_words(own)] if own else []
    return " and ".join(parts) or None


def _always(condition: Condition, params: Mapping[str, Param]) -> bool:
    """Whether a condition holds for all values of its only searched parent."""
    defaults = Hyperparameters.model_fields
    values: dict[str, Any] = {each: params.get(each, defaults[each].default) for each in condition.parents}
    domains = {each: value for each, value in values.items() if isinstance(value, Domain)}
    if len(domains) != 1:
        return False
    ((parent, domain),) = domains.items()
    if domain.when is not None:
        return False
    choices = domain.values if isinstance(domain, CategoricalDomain) else (domain.low, domain.high)
    return all(condition.holds({**values, parent: value}) for value in choices)
