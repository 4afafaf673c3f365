"""How do `-o key=value` arguments change the data of a YAML file?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from search.config_errors import Loc, Problem, dotted, found
from search.parameters import parse_recipe, parse_space, recipe_problems
from search.yaml_file import parse_value
from trainables.errors import ConfigError


def apply_override(data: dict[str, Any], text: str) -> tuple[Loc, Problem | None]:
    """Change one value in place; sections that the file leaves out are made.

    Args:
        data: what the file holds.
        text: `dotted.key=value`; the value is YAML, an index stands for an item of a list.

    Returns:
        The place that was meant, and why it could not be changed.
    """
    key, equals, written = text.partition("=")
    keys = key.strip().split(".")
    loc: Loc = tuple(keys)
    if not equals or not all(keys):
        return (), Problem((), f"must be key=value, found {text!r}; write for instance -o scheduler.max_epochs=20")
    try:
        value = parse_value(written)
    except ConfigError as error:
        return loc, Problem(loc, f"{error}, found {written!r}")
    loc, text_of_problem = _assign(data, keys, value)
    return loc, None if text_of_problem is None else Problem(loc, text_of_problem)


def release_starting_points(data: dict[str, Any], applied: Iterable[Loc]) -> None:
    """Leave out of `start_from`, in place, the values that an overridden domain no longer holds.

    A person who narrows a domain for one run means the recipes of the file to follow. Values that are wrong by
    themselves stay, and so do recipes that were overridden too: these are mistakes to be told.
    """
    places = list(applied)
    names = {str(loc[1]) for loc in places if loc[0] == "space" and len(loc) > 1}
    recipes = data.get("start_from")
    if not names or not isinstance(recipes, list) or any(loc[0] == "start_from" for loc in places):
        return
    params, _ = parse_space(data["space"])
    for recipe in recipes:
        values, _ = parse_recipe(recipe)
        for (name, *_), _text in list(recipe_problems(values, params)):
            if name in names:
                del recipe[name]
    data["start_from"] = [recipe for recipe in recipes if recipe != {}]


def _assign(data: dict[str, Any], keys: Sequence[str], value: Any) -> tuple[Loc, str | None]:
    current: Any = data
    loc: Loc = ()
    for position, key in enumerate(keys):
        last = position == len(keys) - 1
        if isinstance(current, list):
            if not key.isdecimal() or int(key) >= len(current):
                wanted = f"an index from 0 to {len(current) - 1}" if current else "the whole list, as it is empty"
                return (*loc, key), f"{dotted(loc)} is a list, found {key!r}; write {wanted}"
            loc = (*loc, int(key))
            if last:
                current[int(key)] = value
            else:
                current = current[int(key)]
        elif isinstance(current, dict):
            loc = (*loc, key)
            if last:
                current[key] = value
            else:
                if current.get(key) is None:
                    current[key] = {}
                current = current[key]
        else:
            text = f"{dotted(loc)} is no mapping, found {found(current)}; replace it: -o '{dotted(loc)}={{{key}: ...}}'"
            return (*loc, *keys[position:]), text
    return loc, None
