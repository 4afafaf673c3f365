"""Do the parameters of a space fit together? Its conditions, and the combinations that are forbidden."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from search.conditions import effect_problem, examples, in_order, when_of
from search.config_errors import Loc, Problem, unknown_key
from search.domains import Domain, Param, param_problem
from search.forbid import Combination
from search.forbid import in_words as combination_in_words
from search.matching import Match
from search.scalars import word
from search.space import Space
from trainables.hyperparameters import Hyperparameters

# Draws among which one must be allowed, or `forbid` is taken to leave nothing.
_DRAWS = 2_000


class Places:
    """Where each parameter was written: in `space`, or as an argument in `augmentations`."""

    def __init__(self, arguments: Mapping[str, Loc]) -> None:
        self._arguments = arguments

    def of(self, name: str) -> Loc:
        return self._arguments.get(name, ("space", name))


def condition_problems(params: Mapping[str, Param], places: Places) -> list[Problem]:
    """Parents that there are not or that cannot have the values asked for, circles, and what can never exist."""
    problems: list[Problem] = []
    for name, param in params.items():
        for parent, match in when_of(param).items():
            loc = (*places.of(name), "when", parent)
            problems += [Problem(loc, text) for text in _parent_problems(parent, match, params, child=name)]
    if problems:
        return problems
    try:
        ordered = in_order(params)
    except ValueError as error:
        circle = str(error).split("found ")[1].split(" -> ")[0]
        return [Problem((*places.of(circle), "when"), str(error))]
    for name in params:
        text = effect_problem(name, ordered)
        if text is not None:
            problems.append(Problem(places.of(name), text))
    return problems


def forbid_problems(forbid: Sequence[Combination], params: Mapping[str, Param]) -> list[Problem]:
    """Combinations of what is not in the space, and a section that leaves no trial; `params` are without problems."""
    problems = [
        Problem(("forbid", index, name), text)
        for index, combination in enumerate(forbid)
        for name, match in combination.items()
        for text in _parent_problems(name, match, params, child=None)
    ]
    if problems or not forbid:
        return problems
    space = Space(params, forbid=forbid)
    rng = random.Random(0)
    if space.num_combinations == 0 or not any(space.forbidden(space.draw(rng)) is None for _ in range(_DRAWS)):
        words = "; ".join(map(combination_in_words, forbid))
        return [Problem(("forbid",), f"leaves no trial to run, found {words}; remove one of the combinations")]
    return []


def _parent_problems(parent: str, match: Match, params: Mapping[str, Param], *, child: str | None) -> Iterator[str]:
    if parent == child:
        yield f"depends on itself, found {parent}; name another parameter"
        return
    if parent not in params:
        if parent in Hyperparameters.model_fields:
            default = Hyperparameters.model_fields[parent].default
            text = f"is not in the space, where it has its default {word(default)}"
            yield f"{text}, found {parent!r}; add {parent} to the space, or remove this condition"
        else:
            yield unknown_key(parent, params).replace("unknown key", "unknown parameter", 1)
        return
    param = params[parent]
    for value in match if isinstance(match, tuple) else ():
        text_of_value = param_problem(param, value)
        if text_of_value is not None:
            yield text_of_value
    if not isinstance(match, tuple) and not examples(match, param):
        there = param.describe() if isinstance(param, Domain) else word(param)
        yield f"holds for no value of {parent}, found {parent}: {there}; move the bound, or remove this condition"
