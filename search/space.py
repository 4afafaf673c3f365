"""Which values may the parameters of a trial take together? Domains and fixed values, to Optuna define-by-run."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from search.conditions import existence, existence_in_words, exists, in_order, parents_of, when_of
from search.config_errors import unknown_key
from search.domains import Domain, Param, Suggester, param_problem
from search.draws import GivenDraw, NearDraw, UniformDraw
from search.forbid import Combination, forbidden_by, in_words, naming
from search.matching import all_in_words
from search.scalars import word
from trainables.conditions import CONDITIONS

# What the number of combinations is counted over: choices that decide about others. Beyond it there is "no end".
_MAX_STATES = 10_000


class Space:
    """The parameters of a search, in the order in which they are decided: parents before children, else as written.

    A searched parameter is part of a trial only where it has an effect beside what was chosen before
    (`trainables.conditions`) and where its own `when` holds. Fixed values are there in every trial.

    Args:
        params: domain or fixed value of each parameter, as in `SearchConfig.search_space`.
        forbid: combinations that no trial may have.

    Raises:
        ValueError: if a parameter depends on itself.
    """

    def __init__(self, params: Mapping[str, Param], *, forbid: Sequence[Combination] = ()) -> None:
        self._params = in_order(params)
        self._forbid = tuple(forbid)

    @cached_property
    def domains(self) -> Mapping[str, Domain]:
        """The parameters that are searched, in the order in which they are decided."""
        return {name: param for name, param in self._params.items() if isinstance(param, Domain)}

    @cached_property
    def searched(self) -> tuple[str, ...]:
        """Names of the parameters that have a domain."""
        return tuple(self.domains)

    @cached_property
    def fixed(self) -> Mapping[str, Any]:
        """The parameters that have one value in all trials."""
        return {name: param for name, param in self._params.items() if not isinstance(param, Domain)}

    @cached_property
    def _unconditional(self) -> frozenset[str]:
        """Names of the parameters that every trial has."""
        return frozenset(name for name, domain in self.domains.items() if not parents_of(name, domain))

    def suggest(self, trial: Suggester) -> dict[str, Any]:
        """The parameters of one trial: chosen by Optuna, or fixed; those that do not exist in it are left out.

        Whether the combination is forbidden is a question of its own: `forbidden`.
        """
        chosen = dict(self.fixed)
        for name, domain in self.domains.items():
            if name in self._unconditional or exists(name, domain, chosen):
                chosen[name] = domain.suggest(trial, name)
        return {name: chosen[name] for name in self._params if name in chosen}

    def draw(self, rng: random.Random) -> dict[str, Any]:
        """The parameters of one trial, drawn uniformly; as `suggest`."""
        return self.suggest(UniformDraw(rng))

    def forbidden(self, params: Mapping[str, Any]) -> str | None:
        """In words the forbidden combination that parameters have; None when they have none."""
        combination = forbidden_by({**self.fixed, **params}, self._forbid)
        return None if combination is None else in_words(combination)

    def allowed(self, chosen: Mapping[str, Any], *, draws: int) -> Iterator[dict[str, Any]]:
        """Parameters that are not forbidden, some of them chosen; first with the first value of all others, then drawn.

        Args:
            draws: how many are drawn, the same every time; those that are forbidden are among them.
        """
        first, drawn = GivenDraw(chosen), NearDraw(chosen, rng=random.Random(0), reach=0.0, anew=0.0)
        tried = itertools.chain([self.suggest(first)], (self.suggest(drawn) for _ in range(draws)))
        return (params for params in tried if self.forbidden(params) is None)

    def contains(self, params: Mapping[str, Any], *, partial: bool = False) -> str | None:
        """Why parameters do not lie in this space; None when they do.

        Args:
            params: values by name; fixed parameters may be left out.
            partial: whether searched parameters may be left out too, as in a starting point.
        """
        for name, value in params.items():
            if name not in self._params:
                return f"{name}: {unknown_key(name, self._params)}"
            text = self.value_problem(name, value)
            if text is not None:
                return f"{name}: {text}"
        return self._existence_problem(params, partial=partial) or self._forbidden_problem(params)

    def value_problem(self, name: str, value: Any) -> str | None:
        """Why a parameter of the space cannot take a value, whatever the others have; None when it can."""
        return param_problem(self._params[name], value)

    def _existence_problem(self, params: Mapping[str, Any], *, partial: bool) -> str | None:
        chosen = {**self.fixed, **params}
        undecided: set[str] = set()
        for name, domain in self.domains.items():
            there = existence(name, domain, chosen, undecided=undecided)
            if name in params and there is False:
                return f"{name}: {self._no_effect(name, chosen)}"
            if name in params or there is False:
                continue
            if not partial:
                return f"{name}: is missing, found {', '.join(params) or 'nothing'}; give it a value"
            undecided.add(name)
        return None

    def _no_effect(self, name: str, chosen: Mapping[str, Any]) -> str:
        condition = CONDITIONS.get(name)
        asked = [*when_of(self._params[name]).items()]
        words = [condition.words] if condition is not None else []
        words += [all_in_words(asked)] if asked else []
        parents = parents_of(name, self._params[name])
        there = ", ".join(f"{each}: {word(chosen[each])}" for each in parents if each in chosen) or "none of these"
        return f"has an effect only where {' and '.join(words)}, found {there}; remove it"

    def _forbidden_problem(self, params: Mapping[str, Any]) -> str | None:
        combination = forbidden_by({**self.fixed, **params}, self._forbid)
        if combination is None:
            return None
        name = next(each for each in [*reversed(list(params)), *combination] if each in combination)
        return f"{name}: is part of a forbidden combination, found {in_words(combination)}; change one of these values"

    @cached_property
    def num_combinations(self) -> int | None:
        """How many different trials there are that are not forbidden.

        None when a domain is continuous, or when too many choices decide about others to be counted.
        """
        names = list(self.domains)
        if any(domain.num_values is None for domain in self.domains.values()):
            return None
        needed = [self._needed_from(names[index:]) for index in range(len(names) + 1)]
        known: dict[tuple[int, frozenset[tuple[str, Any]]], int] = {}

        def count(index: int, chosen: dict[str, Any]) -> int:
            if index == len(names):
                return 1
            chosen = {name: value for name, value in chosen.items() if name in needed[index]}
            key = index, frozenset((name, (type(value), value)) for name, value in chosen.items())
            if key not in known:
                if len(known) >= _MAX_STATES:
                    raise _TooManyError
                known[key] = branches(index, chosen)
            return known[key]

        def branches(index: int, chosen: dict[str, Any]) -> int:
            name, domain = names[index], self.domains[names[index]]
            if not exists(name, domain, {**self.fixed, **chosen}):
                return count(index + 1, chosen)
            if name not in needed[index + 1] and not any(naming(name, self._forbid)):
                assert domain.num_values is not None
                return domain.num_values * count(index + 1, chosen)
            if domain.num_values is None or domain.num_values > _MAX_STATES:
                raise _TooManyError
            options = ({**chosen, name: value} for value in domain.grid())
            return sum(count(index + 1, each) for each in options if self.forbidden(each) is None)

        try:
            return count(0, {}) if self.forbidden({}) is None else 0
        except _TooManyError:
            return None

    def _needed_from(self, names: Sequence[str]) -> set[str]:
        """The parameters on whose values the existence, or the ban, of some others still depends."""
        parents = {parent for name in names for parent in parents_of(name, self._params[name])}
        banned = {each for name in names for combination in naming(name, self._forbid) for each in combination}
        return parents | banned

    def combinations(self) -> Iterator[dict[str, Any]]:
        """All allowed trials of a finite space, fixed values included; what is decided last varies fastest.

        Raises:
            ValueError: if the space is not finite.
        """
        endless = [name for name, domain in self.domains.items() if domain.num_values is None]
        if endless:
            raise ValueError(f"the space is not finite, found {', '.join(endless)} continuous; give each a step")
        names = list(self.domains)

        def extend(index: int, chosen: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
            if index == len(names):
                yield {name: chosen[name] for name in self._params if name in chosen}
                return
            name, domain = names[index], self.domains[names[index]]
            if not exists(name, domain, chosen):
                yield from extend(index + 1, chosen)
                return
            for value in domain.grid():
                longer = {**chosen, name: value}
                if forbidden_by(longer, self._forbid) is None:
                    yield from extend(index + 1, longer)

        if forbidden_by(self.fixed, self._forbid) is None:
            yield from extend(0, self.fixed)

    def describe(self) -> list[tuple[str, str]]:
        """Name and description of each parameter, as rows of a table; and of each forbidden combination."""
        rows = [(name, self._describe(name, param)) for name, param in self._params.items()]
        return rows + [("forbidden", in_words(combination)) for combination in self._forbid]

    def _describe(self, name: str, param: Param) -> str:
        if not isinstance(param, Domain):
            return f"{word(param)} (fixed)"
        parts = [param.describe()]
        if param.scaled_by is not None:
            root = "the square root of " if param.scaled_by.rule == "sqrt" else ""
            parts.append(f"times {root}{param.scaled_by.parameter} / {param.scaled_by.reference:g}")
        if param.prior is not None:
            parts.append(f"expected near {word(param.prior.value)} ({param.prior.confidence} confidence)")
        where = existence_in_words(name, self._params)
        parts += [f"only where {where}"] if where else []
        parts += [f"tags: {', '.join(param.tags)}"] if param.tags else []
        return "; ".join(parts)


class _TooManyError(Exception):
    """There are more deciding choices than are worth counting."""
