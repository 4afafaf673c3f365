"""Which arguments of the augmentation pipelines are searched? A domain in place of a value makes a parameter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.config_errors import Loc, Problem, found
from search.domains import DOMAINS, CategoricalDomain, Domain, Param, no_type, parse_domain
from trainables.nearest import nearest

PREFIX = "augmentations."
_KEYS_OF_DOMAINS = {"low", "high", "log", "values"}


@dataclass(frozen=True)
class PipelineParam:
    """A searched argument.

    Attributes:
        name: as in augmentations.mine.Affine.rotate; of several Affine in a pipeline the second is Affine2.
        loc: its place in the section `augmentations`.
        domain: None where it is not sound; `problems` says why.
    """

    name: str
    pipeline: str
    loc: Loc
    domain: Domain | None
    problems: tuple[Problem, ...] = ()


def pipeline_params(pipelines: Any) -> list[PipelineParam]:
    """All searched arguments of all pipelines, in the order written; of unvalidated data what can be read."""
    if not isinstance(pipelines, Mapping):
        return []
    found_params: list[PipelineParam] = []
    for pipeline, steps in pipelines.items():
        for loc, words, raw in _domains_in_steps(steps, counts=Counter()):
            domain, problems = _parse(raw)
            name = ".".join([PREFIX.rstrip("."), pipeline, *words])
            found_params.append(PipelineParam(name, pipeline, (pipeline, *loc), domain, tuple(problems)))
    return found_params


def searched_arguments(pipelines: Any, augment: Param) -> dict[str, Domain]:
    """The sound ones of the pipelines that a space can choose, each existing only where `augment` is its pipeline.

    Args:
        augment: the parameter `augment` of the space.
    """
    named = _values(augment)
    return {
        each.name: each.domain.model_copy(update={"when": {"augment": (each.pipeline,), **(each.domain.when or {})}})
        for each in pipeline_params(pipelines)
        if each.domain is not None and each.pipeline in named
    }


def _values(augment: Param) -> tuple[Any, ...]:
    if isinstance(augment, CategoricalDomain):
        return augment.values
    return () if isinstance(augment, Domain) else (augment,)


def fill_pipelines(pipelines: Mapping[str, Sequence[Any]], params: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The pipelines with values in place of domains; an argument without one is left to the transform's default.

    Args:
        params: values by the names of `pipeline_params`; others are passed over.
    """
    places = {each.loc: each.name for each in pipeline_params(pipelines)}
    return {name: _filled(list(steps), (name,), places, params) for name, steps in pipelines.items()}


class _NoValueError(Exception):
    """A searched argument has no value in this trial."""


def _filled(value: Any, loc: Loc, places: Mapping[Loc, str], params: Mapping[str, Any]) -> Any:
    if loc in places:
        if places[loc] not in params:
            raise _NoValueError
        return params[places[loc]]
    if isinstance(value, Mapping):
        is_arguments = len(loc) >= 2 and isinstance(loc[-2], int)  # PIPELINE, INDEX, TRANSFORM
        filled: dict[str, Any] = {}
        for key, part in value.items():
            try:
                filled[key] = _filled(part, (*loc, key), places, params)
            except _NoValueError:
                if not is_arguments:
                    raise
        return filled
    if isinstance(value, list | tuple):
        return [_filled(part, (*loc, index), places, params) for index, part in enumerate(value)]
    return value


def _domains_in_steps(steps: Any, *, counts: Counter[str]) -> Iterator[tuple[Loc, list[str], Mapping[str, Any]]]:
    """Place, words of the name and raw domain of each, in a list of transforms and the lists within it."""
    for index, step in enumerate(steps if isinstance(steps, list | tuple) else ()):
        if not isinstance(step, Mapping):
            continue
        for transform, arguments in step.items():
            counts[transform] += 1
            number = counts[transform]
            word = transform if number == 1 else f"{transform}{number}"
            if not isinstance(arguments, Mapping):
                continue
            for argument, value in arguments.items():
                here: Loc = (index, transform, argument)
                if argument == "transforms":
                    inner = _domains_in_steps(value, counts=counts)
                    yield from (((*here, *loc), words, raw) for loc, words, raw in inner)
                else:
                    yield from ((loc, [word, *words], raw) for loc, words, raw in _domains_in(value, here, [argument]))


def _domains_in(value: Any, loc: Loc, words: list[str]) -> Iterator[tuple[Loc, list[str], Mapping[str, Any]]]:
    if isinstance(value, Mapping):
        if "type" in value or _KEYS_OF_DOMAINS & value.keys():
            yield loc, words, value
            return
        for key, part in value.items():
            yield from _domains_in(part, (*loc, key), [*words, str(key)])
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _domains_in(part, (*loc, index), [*words, str(index)])


def _parse(raw: Mapping[str, Any]) -> tuple[Domain | None, list[Problem]]:
    kinds = ", ".join(DOMAINS)
    if "type" not in raw:
        return None, [no_type(raw, DOMAINS)]
    if not isinstance(raw["type"], str) or raw["type"] not in DOMAINS:
        matches = nearest(str(raw["type"]), DOMAINS, count=1)
        remedy = f"write type: {matches[0]}" if matches else f"write one of {kinds}"
        return None, [Problem(("type",), f"must be {kinds}, found {found(raw['type'])}; {remedy}")]
    if raw.get("scaled_by") is not None:
        text = "is for parameters of the space, found it at an argument of a pipeline; remove it"
        return None, [Problem(("scaled_by",), text)]
    if isinstance(raw.get("when"), Mapping) and "augment" in raw["when"]:
        text = "goes without saying: an argument exists only where augment is its pipeline, found augment; remove it"
        return None, [Problem(("when", "augment"), text)]
    return parse_domain(raw)
