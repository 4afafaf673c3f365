"""Small values of the configuration with a form of their own: names, durations, metrics, pipelines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

from search.config_errors import Problem, found, raise_problems
from search.pipeline_params import pipeline_params
from trainables.config import AugmentationStep
from trainables.hyperparameters import BUILTIN_AUGMENTATIONS
from trainables.metric_names import METRIC_MODES, STATIC_OBJECTIVES
from trainables.nearest import nearest
from trainables.pipeline_names import pipeline_problems

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([smhd]?)")


def slug(text: str) -> str:
    """The nearest name that may be part of a path."""
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-") or "search"


def duration_s(value: str | float) -> float:
    """Seconds of a duration such as 90s, 30m, 2h, 1d, or a number of seconds.

    Raises:
        ValueError: if it is no duration above 0.
    """
    match = _DURATION.fullmatch(str(value).strip())
    seconds = float(match[1]) * _SECONDS[match[2] or "s"] if match else 0.0
    if isinstance(value, bool) or seconds <= 0:
        raise ValueError(f"must be a duration above 0, found {found(value)}; write it as 90s, 30m, 2h or 1d")
    return seconds


def _check_slug(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9_-]+", name):
        raise ValueError(f"must be of a-z, 0-9, - and _ only, found {name!r}; write {slug(name)}")
    return name


def _check_duration(value: Any) -> str | int | float | None:
    if value is None:
        return None
    if not isinstance(value, str | int | float):
        raise ValueError(f"must be a duration, found {found(value)}; write it as 90s, 30m, 2h or 1d")
    duration_s(value)
    return value


def _check_metric(metric: str) -> str:
    if metric not in METRIC_MODES:
        matches = nearest(metric, METRIC_MODES, count=1)
        remedy = f"write {matches[0]}" if matches else f"write one of {', '.join(METRIC_MODES)}"
        raise ValueError(f"must be {', '.join(METRIC_MODES)}, found {metric!r}; {remedy}")
    return metric


def _check_metrics(value: Any) -> tuple[str, ...]:
    """One validation metric, then static objectives; a lone metric may stand without a list."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"must be a metric or a list of names, found {found(value)}; write val_top1")
    metric, *objectives = names
    if metric in STATIC_OBJECTIVES:
        raise ValueError(
            f"must begin with a validation metric, found {metric!r}; write [val_top1, {metric}], or put it under limits"
        )
    _check_metric(metric)
    for name in objectives:
        if name in METRIC_MODES:
            raise ValueError(
                f"takes one validation metric, the first, found {metric} and {name}; keep one, beside any of "
                f"{', '.join(STATIC_OBJECTIVES)}"
            )
        _check_static(name)
    if len(set(objectives)) < len(objectives):
        raise ValueError(f"names an objective twice, found {', '.join(objectives)}; keep one of each")
    return tuple(names)


def _check_static(name: str) -> str:
    if name not in STATIC_OBJECTIVES:
        known = ", ".join(STATIC_OBJECTIVES)
        matches = nearest(name, STATIC_OBJECTIVES, count=1)
        remedy = f"write {matches[0]}" if matches else f"write one of {known}"
        raise ValueError(f"must be {known}, found {name!r}; {remedy}")
    return name


def _check_pipelines(value: Any) -> dict[str, tuple[AugmentationStep, ...]]:
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a mapping, found {found(value)}; write `name:` and below it a list of transforms")
    problems: list[Problem] = []
    for name, steps in value.items():
        if name in BUILTIN_AUGMENTATIONS:
            problems.append(Problem((name,), f"is built in, found a pipeline of that name; call it my_{name}"))
        problems += [Problem((name, *loc), text) for loc, text in pipeline_problems(steps)]
    problems += [each.under(*argument.loc) for argument in pipeline_params(value) for each in argument.problems]
    raise_problems("augmentations", problems)
    return {name: tuple(steps) for name, steps in value.items()}


Slug = Annotated[str, AfterValidator(_check_slug), Field(json_schema_extra={"pattern": "^[a-z0-9_-]+$"})]
_METRIC_SCHEMA = {"type": "string", "enum": list(METRIC_MODES)}
Metrics = Annotated[
    tuple[str, ...],
    PlainValidator(_check_metrics),
    PlainSerializer(lambda names: names[0] if len(names) == 1 else list(names)),
    WithJsonSchema(
        {
            "anyOf": [
                _METRIC_SCHEMA,
                {
                    "type": "array",
                    "prefixItems": [_METRIC_SCHEMA],
                    "items": {"enum": list(STATIC_OBJECTIVES)},
                    "minItems": 1,
                    "uniqueItems": True,
                },
            ]
        }
    ),
]
StaticObjective = Annotated[
    str, AfterValidator(_check_static), Field(json_schema_extra={"enum": list(STATIC_OBJECTIVES)})
]
Duration = Annotated[
    str | int | float | None,
    PlainValidator(_check_duration),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*[smhd]?\s*$"},
                {"type": "number", "exclusiveMinimum": 0},
                {"type": "null"},
            ]
        }
    ),
]
_STEP = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": {"type": "object"},
        },
    ]
}
Pipelines = Annotated[
    dict[str, tuple[AugmentationStep, ...]],
    BeforeValidator(_check_pipelines),
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": {"type": "array", "minItems": 1, "items": _STEP},
        }
    ),
]
