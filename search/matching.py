"""Which values does a condition mean? One, several, or all above or below a bound; shared by `when` and `forbid`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field, ValidationError, model_validator

from search.config_errors import Problem, found, problems_of, raise_problems
from search.scalars import Scalar, StrictFloat, same, word
from trainables.hyperparameters import Frozen


class Between(Frozen):
    """All numbers strictly above one bound, strictly below another, or both."""

    above: StrictFloat | None = Field(default=None, description="Only values larger than this.")
    below: StrictFloat | None = Field(default=None, description="Only values smaller than this.")

    @model_validator(mode="after")
    def _sound(self) -> Between:
        if self.above is None and self.below is None:
            raise_problems("Between", [Problem((), "names no bound, found an empty mapping; write {above: 64}")])
        if self.above is not None and self.below is not None and self.above >= self.below:
            text = f"must be below `below`, found {self.above:g} and {self.below:g}; exchange them"
            raise_problems("Between", [Problem(("above",), text)])
        return self


# The values that a condition asks of one parameter.
Match = tuple[Scalar, ...] | Between
Matches = Mapping[str, Match]


def parse_match(raw: object) -> tuple[Match, list[Problem]]:
    """A value, a list of values, or {above, below}; and what is wrong with it."""
    if isinstance(raw, Between):
        return raw, []
    if isinstance(raw, Mapping):
        try:
            return Between.model_validate(raw), []
        except ValidationError as error:
            return (), problems_of(error, Between)
    if not isinstance(raw, list | tuple):
        raw = (raw,)
    if not raw:
        return (), [Problem((), "must hold at least 1 value, found an empty list; write the values that are meant")]
    wrong = [
        Problem((index,) if len(raw) > 1 else (), f"must be one finite value, found {found(value)}; write one value")
        for index, value in enumerate(raw)
        if not isinstance(value, str | int | float | bool | None) or (isinstance(value, float) and math.isinf(value))
    ]
    return tuple(raw), wrong


def parse_matches(raw: object, *, example: str) -> dict[str, Match]:
    """A mapping of parameters to the values meant, for a pydantic validator.

    Raises:
        ValidationError: with every problem at its own place.
    """
    if not isinstance(raw, Mapping) or not raw:
        raise_problems("matches", [Problem((), f"must map parameters to values, found {found(raw)}; write {example}")])
        raise AssertionError
    parsed = {name: parse_match(value) for name, value in raw.items()}
    raise_problems("matches", (problem.under(name) for name, (_, wrong) in parsed.items() for problem in wrong))
    return {name: match for name, (match, _) in parsed.items()}


def dump_matches(matches: Matches) -> dict[str, Any]:
    """The same as plain data; single values without a list."""
    return {name: _dump(match) for name, match in matches.items()}


def _dump(match: Match) -> Any:
    if isinstance(match, Between):
        return match.model_dump(exclude_none=True)
    return match[0] if len(match) == 1 else list(match)


def matches(match: Match, value: Scalar) -> bool:
    """Whether a value is among those meant."""
    if isinstance(match, tuple):
        return any(same(value, each) for each in match)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return (match.above is None or value > match.above) and (match.below is None or value < match.below)


def in_words(name: str, match: Match) -> str:
    """As in "batch_size is 128 or 256"."""
    return f"{name} is {_values_in_words(match)}"


def _values_in_words(match: Match) -> str:
    if isinstance(match, tuple):
        return " or ".join(map(word, match))
    bounds = [("above", match.above), ("below", match.below)]
    return " and ".join(f"{side} {bound:g}" for side, bound in bounds if bound is not None)


def all_in_words(conditions: Iterable[tuple[str, Match]]) -> str:
    """Several conditions that hold together."""
    return " and ".join(in_words(name, match) for name, match in conditions)


_SCALAR_SCHEMA = {"type": ["string", "number", "boolean", "null"]}
MATCH_SCHEMA: dict[str, Any] = {
    "anyOf": [
        _SCALAR_SCHEMA,
        {"type": "array", "minItems": 1, "items": _SCALAR_SCHEMA},
        {
            "type": "object",
            "minProperties": 1,
            "properties": {"above": {"type": "number"}, "below": {"type": "number"}},
            "additionalProperties": False,
        },
    ]
}
MATCHES_SCHEMA: dict[str, Any] = {"type": "object", "minProperties": 1, "additionalProperties": MATCH_SCHEMA}
