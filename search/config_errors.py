"""How is a mistake in the configuration told? Where, what is wrong, what was found, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from trainables.nearest import nearest

Loc = tuple[str | int, ...]


class Problem(NamedTuple):
    """One mistake: its place in the configuration, and a sentence with what was found and a remedy."""

    loc: Loc
    text: str

    def under(self, *prefix: str | int) -> Problem:
        """The same problem, seen from further out."""
        return Problem((*prefix, *self.loc), self.text)


def dotted(loc: Iterable[str | int]) -> str:
    """A place as a person writes it, as in space.arch.values.2."""
    return ".".join(map(str, loc))


def found(value: object) -> str:
    """A value as it would be written in YAML, shortened."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            return repr(value if len(value) <= 60 else value[:57] + "...")
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
    return str(value)


def unknown_key(key: str, valid: Iterable[str]) -> str:
    """The sentence for a key that nothing reads."""
    options = list(valid)
    matches = nearest(key, options)
    remedy = f"did you mean {' or '.join(matches)}? " if matches else ""
    return f"unknown key, found {key!r}; {remedy}valid here: {', '.join(options)}"


def raise_problems(title: str, problems: Iterable[Problem]) -> None:
    """From within a pydantic validator: report each problem at its own place; nothing when there are none.

    Raises:
        ValidationError: which pydantic merges into that of the enclosing model.
    """
    errors: list[InitErrorDetails] = [
        {"type": PydanticCustomError("problem", "{text}", {"text": text}), "loc": loc, "input": None}
        for loc, text in problems
    ]
    if errors:
        raise ValidationError.from_exception_data(title, errors)


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """All problems of a failed validation, in words that need no knowledge of pydantic."""
    return [_problem(details, model) for details in error.errors(include_url=False)]


def _problem(details: ErrorDetails, model: type[BaseModel]) -> Problem:
    # Of a mapping whose keys are checked too, pydantic marks a wrong key by one more step.
    loc = details["loc"][:-1] if details["loc"][-1:] == ("[key]",) else details["loc"]
    kind, context = details["type"], details.get("ctx", {})
    shown = found(details["input"])
    if kind == "problem":
        return Problem(loc, str(context["text"]))
    if kind == "value_error":
        return Problem(loc, str(context["error"]))
    if kind == "extra_forbidden":
        enclosing = _model_at(model, loc[:-1])
        return Problem(loc, unknown_key(str(loc[-1]), enclosing.model_fields if enclosing else ()))
    if kind == "missing":
        return Problem(loc, f"is missing; add {loc[-1]}: {_example(model, loc)}")
    if kind == "literal_error":
        return Problem(loc, _not_one_of(shown, str(details["input"]), str(context["expected"])))
    for pattern, sentence in _SENTENCES:
        if re.fullmatch(pattern, kind):
            return Problem(loc, sentence.format(found=shown, **context))
    return Problem(loc, f"{details['msg'][0].lower()}{details['msg'][1:]}, found {shown}; correct this value")


# Kinds of pydantic errors, and the sentence for each.
_SENTENCES = (
    ("int_.*", "must be a whole number, found {found}; write digits without quotes or a decimal point, such as 8"),
    ("float_.*", "must be a number, found {found}; write it without quotes, such as 0.1 or 1e-3"),
    ("finite_number", "must be a finite number, found {found}; write a number such as 0.1"),
    ("bool_.*", "must be true or false, found {found}; write true or false without quotes"),
    ("string_type", "must be text, found {found}; write text, in quotes if it looks like a number"),
    ("greater_than", "must be above {gt:g}, found {found}; write a number above {gt:g}"),
    ("greater_than_equal", "must be at least {ge:g}, found {found}; write {ge:g} or more"),
    ("less_than", "must be below {lt:g}, found {found}; write a number below {lt:g}"),
    ("less_than_equal", "must be at most {le:g}, found {found}; write {le:g} or less"),
    ("(?:model|dict|dataclass|mapping)_.*", "must be a mapping, found {found}; write `key: value` lines below it"),
    ("(?:list|tuple)_type", "must be a list, found {found}; write it in brackets: [a, b]"),
    ("too_short", "must hold at least {min_length} value, found {actual_length}; add one"),
)


def _not_one_of(shown: str, value: str, expected: str) -> str:
    options = re.findall(r"'([^']*)'", expected)
    matches = nearest(value, options, count=1)
    remedy = f"write {matches[0]}" if matches else f"write one of {', '.join(options)}"
    *others, last = options
    listed = f"{', '.join(others)} or {last}" if others else last
    return f"must be {listed}, found {shown}; {remedy}"


def _model_at(model: type[BaseModel], loc: Loc) -> type[BaseModel] | None:
    """The model that is written at a place below another model, if there is one."""
    current = model
    for key in loc:
        field = current.model_fields.get(str(key))
        inner = _inner_model(field.annotation) if field is not None else None
        if inner is None:
            return None
        current = inner
    return current


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return next((found for part in get_args(annotation) if (found := _inner_model(part))), None)
    return None


def _example(model: type[BaseModel], loc: Loc) -> str:
    """What a person may write for a required key: an example of the field, else one of its choices."""
    enclosing = _model_at(model, loc[:-1])
    field = enclosing.model_fields.get(str(loc[-1])) if enclosing else None
    if field is None:
        return "VALUE"
    if field.examples:
        return str(field.examples[0])
    choices = [str(choice) for choice in get_args(field.annotation) if isinstance(choice, str)]
    return f"and one of {', '.join(choices)}" if choices else "VALUE"
