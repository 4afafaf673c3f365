"""Is an augmentation pipeline written as albumentations will understand it? Checked without importing it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from trainables.nearest import nearest

_EXPORTS = re.compile(r"^__all__ = \[(.*?)\]", re.MULTILINE | re.DOTALL)
_CLASS = re.compile(r"^class (\w+)\(", re.MULTILINE)
# Steps that are not defined among the augmentations themselves.
_OTHERS = frozenset({"OneOf", "SomeOf", "RandomOrder", "Sequential", "NoOp"})
# Exported for subclassing, or in need of a Python function that no YAML can hold.
_NOT_STEPS = re.compile(r"^Base|^Lambda$")


@cache
def known_transforms() -> frozenset[str]:
    """Class names that may be a step of a pipeline, read from the installed sources of albumentations."""
    spec = find_spec("albumentations")  # a top-level name: nothing is imported
    if spec is None or spec.submodule_search_locations is None:
        return frozenset()
    names: set[str] = set()
    for folder in spec.submodule_search_locations:
        for file in Path(folder, "augmentations").rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            exported = {name for block in _EXPORTS.findall(text) for name in re.findall(r"\"(\w+)\"", block)}
            names |= exported & set(_CLASS.findall(text))
    return _OTHERS | {name for name in names if not _NOT_STEPS.search(name)}


def pipeline_problems(steps: object) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What is wrong with the shape and the class names of one pipeline.

    Args:
        steps: what the configuration holds for it; rightly a list of `Name` or `{Name: {argument: value}}`,
            where the argument `transforms` is again such a list.

    Yields:
        The place within the pipeline, and a sentence with a remedy.
    """
    if not isinstance(steps, list | tuple):
        yield (), f"must be a list of transforms, found {_shown(steps)}; write each on a line of its own after `- `"
        return
    if not steps:
        yield (), "must name at least one transform, found an empty list; write for instance - HorizontalFlip"
    for index, step in enumerate(steps):
        for loc, text in _step_problems(step):
            yield (index, *loc), text


def _step_problems(step: object) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(step, str):
        yield from _name_problems((), step)
        return
    if not isinstance(step, dict) or len(step) != 1:
        found = f"the keys {', '.join(map(str, step))}" if isinstance(step, dict) and step else _shown(step)
        yield (), f"must be one transform, found {found}; write - Name, or - Name: {{argument: value}}"
        return
    name, arguments = next(iter(step.items()))
    yield from _name_problems((name,), name)
    if not isinstance(arguments, dict):
        remedy = f"write - {name}" if arguments is None else f"write - {name}: {{argument: value}}"
        yield (name,), f"must be followed by a mapping of arguments, found {_shown(arguments)}; {remedy}"
    elif "transforms" in arguments:
        for loc, text in pipeline_problems(arguments["transforms"]):
            yield (name, "transforms", *loc), text


def _name_problems(loc: tuple[str | int, ...], name: str) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if name not in known_transforms():
        matches = nearest(name, sorted(known_transforms()))
        remedy = f"nearest: {', '.join(matches)}" if matches else "write a class of albumentations, such as Affine"
        yield loc, f"albumentations has no transform {name!r}; {remedy}"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return "nothing" if value is None else repr(value)
