"""What may a search start from? Section `start_from`: recipes to be tried first, and earlier runs to learn from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field, ValidationError

from search.config_errors import Problem, found, problems_of, raise_problems, unknown_key
from search.parameters import parse_recipe
from search.scalars import Scalar, StrictInt
from trainables.hyperparameters import Frozen

Recipe = dict[str, Scalar]


class EarlierRun(Frozen):
    """An earlier search whose trials are starting knowledge."""

    run: str = Field(min_length=1, description="Folder of the earlier search, such as results/first.")
    map: dict[str, str] = Field(
        default={},
        description="Parameters of that search that stand for parameters of another name in this space: "
        "{that parameter: this parameter}.",
    )
    top: StrictInt = Field(
        default=3,
        ge=0,
        description="Where no score of that search holds for this one, its best parameter sets that fit are tried "
        "first: this many.",
    )
    retry: StrictInt | None = Field(
        default=None,
        ge=0,
        description="Where its scores hold, its best trials that carry over are run again first, so that they can win: "
        "this many; by default 1, with retrainings final.top_k, with several objectives the Pareto front. The others "
        "are not run again.",
    )


Start = Recipe | EarlierRun


def parse_start_from(raw: Any) -> tuple[Start, ...]:
    """The section, for a pydantic validator; whether it fits the space is checked across sections."""
    entries = entries_of(raw)
    if entries is None:
        raise ValueError(f"must be a list of starting points, found {found(raw)}; write - {{lr: 1e-3}}")
    parsed = [_parse_entry(entry) for entry in entries]
    raise_problems("start_from", (problem.under(index) for index, (_, wrong) in enumerate(parsed) for problem in wrong))
    return tuple(start for start, _ in parsed)


def dump_start_from(starts: Sequence[Start]) -> list[dict[str, Any]]:
    """The section as plain data."""
    return [start.model_dump() if isinstance(start, EarlierRun) else dict(start) for start in starts]


def entries_of(raw: Any) -> list[Any] | None:
    """What a section, valid or not, lists; a lone folder may stand without a list. None for what is no list."""
    if isinstance(raw, str):
        return [raw]
    return list(raw) if isinstance(raw, list | tuple) else None


def names_a_run(entry: Any) -> bool:
    """Whether an entry is an earlier run, rather than a recipe."""
    return isinstance(entry, str | EarlierRun) or (isinstance(entry, Mapping) and "run" in entry)


def map_problems(raw: Any, known: Sequence[str]) -> Iterator[Problem]:
    """Parameters that a `map` names on the side of this space, and that it does not have.

    Args:
        raw: the section, valid or not; what is wrong by itself is passed over.
        known: names of the space.
    """
    for index, entry in enumerate(entries_of(raw) or ()):
        run, wrong = _parse_entry(entry)
        if wrong or not isinstance(run, EarlierRun):
            continue
        taken: dict[str, str] = {}
        for there, here in run.map.items():
            loc = ("start_from", index, "map", there)
            if here not in known:
                yield Problem(loc, unknown_key(here, known).replace("unknown key", "is not in this space", 1))
            elif here in taken:
                yield Problem(loc, f"stands for {here} as {taken[here]} does, found {here} twice; keep one of them")
            taken[here] = there


def _parse_entry(entry: Any) -> tuple[Start, list[Problem]]:
    if isinstance(entry, EarlierRun):
        return entry, []
    if not names_a_run(entry):
        lonely = [key for key in EarlierRun.model_fields if isinstance(entry, Mapping) and key in entry]
        if lonely:
            return {}, [
                Problem((lonely[0],), f"goes with an earlier run, found {lonely[0]} alone; add run: results/RUN")
            ]
        return parse_recipe(entry)
    try:
        # Text is no number, but a mapping from a file is one of plain values whatever its keys are.
        return EarlierRun.model_validate({"run": entry} if isinstance(entry, str) else dict(entry)), []
    except ValidationError as error:
        return {}, problems_of(error, EarlierRun)
