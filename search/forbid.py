"""Which combinations of values must no trial have? The section `forbid`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from search.config_errors import Problem, found, raise_problems
from search.matching import Match, Matches, all_in_words, dump_matches, matches, parse_matches

# A trial is forbidden that has, of every parameter named, one of the values meant.
Combination = dict[str, Match]
_EXAMPLE = "- {arch: resnet50, batch_size: {above: 128}}"


def parse_forbid(raw: Any) -> tuple[Combination, ...]:
    """The section, for a pydantic validator; whether its parameters are in the space is checked across.

    Raises:
        ValidationError: with every problem at its own place.
    """
    if not isinstance(raw, list | tuple):
        raise ValueError(f"must be a list of combinations, found {found(raw)}; write {_EXAMPLE}")
    parsed: list[Combination] = []
    problems: list[Problem] = []
    for index, combination in enumerate(raw):
        try:
            parsed.append(parse_matches(combination, example=_EXAMPLE))
        except ValidationError as error:
            problems += [Problem((index, *each["loc"]), str(each["ctx"]["text"])) for each in error.errors()]
    raise_problems("forbid", problems)
    return tuple(parsed)


def dump_forbid(forbid: Sequence[Matches]) -> list[dict[str, Any]]:
    """The section as plain data."""
    return [dump_matches(combination) for combination in forbid]


def forbidden_by(params: Mapping[str, Any], forbid: Sequence[Matches]) -> Matches | None:
    """The first combination that parameters have in full; what they lack is not part of any."""
    return next((combination for combination in forbid if _has(params, combination)), None)


def _has(params: Mapping[str, Any], combination: Matches) -> bool:
    return all(name in params and matches(match, params[name]) for name, match in combination.items())


def in_words(combination: Matches) -> str:
    """As in "arch is resnet50 and batch_size is above 128"."""
    return all_in_words(combination.items())


def naming(name: str, forbid: Sequence[Matches]) -> Iterator[Matches]:
    """The combinations that name a parameter."""
    return (combination for combination in forbid if name in combination)
