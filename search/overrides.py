"""How do `-o key=value` arguments change the data of a YAML file?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from search.conditions import ancestors, effect_problem, examples, in_order, parents_of
from search.config_checks import whole_space
from search.config_errors import Loc, Problem, dotted, found
from search.domains import Domain, Param
from search.matching import parse_match
from search.parameters import parse_recipe, parse_space, recipe_problems
from search.pipeline_params import PREFIX
from search.start_from import names_a_run
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


def release(data: dict[str, Any], applied: Iterable[Loc]) -> None:
    """Leave out of a file, in place, what an overridden parameter of the space makes meaningless.

    A person who narrows a domain for one run means the rest of the file to follow: values of conditions and starting
    points that the domain no longer holds, and parameters that have no effect any more. What is wrong by itself
    stays, and so does what was overridden too: these are mistakes to be told.
    """
    places = list(applied)
    names = {str(loc[1]) for loc in places if loc[0] == "space" and len(loc) > 1}
    space = data.get("space")
    if not names or not isinstance(space, dict):
        return
    written = set(space)
    _release_conditions(data, space, names)
    _release_parameters(data, space, names | (written - set(space)))
    gone = written - set(space)
    _release_combinations(data, gone)
    if not any(loc[0] == "start_from" for loc in places):
        _release_starting_points(data, names | gone)


def _release_conditions(data: dict[str, Any], space: dict[str, Any], names: set[str]) -> None:
    """Values that overridden parameters no longer have leave `when` and `forbid`; so does what asks only for these."""
    params, _ = parse_space(space)
    for name in [name for name in space if name not in names]:
        when = space[name].get("when") if isinstance(space[name], dict) else None
        if isinstance(when, dict) and not _narrowed(when, params, names):
            del space[name]
    combinations = data.get("forbid")
    if isinstance(combinations, list):
        data["forbid"] = [each for each in combinations if not isinstance(each, dict) or _narrowed(each, params, names)]


def _narrowed(conditions: dict[str, Any], params: Mapping[str, Param], names: set[str]) -> bool:
    """Whether conditions can still hold, once impossible values of overridden parameters are left out in place."""
    for name in names.intersection(conditions).intersection(params):
        match, wrong = parse_match(conditions[name])
        if wrong or (left := examples(match, params[name])) == []:
            return bool(wrong)
        if isinstance(match, tuple):
            conditions[name] = left if isinstance(params[name], Domain) else [params[name]]
    return True


def _release_parameters(data: dict[str, Any], space: dict[str, Any], names: set[str]) -> None:
    """Parameters that have lost their effect leave the space."""
    while True:  # one that leaves may have been the parent of another
        params, _ = parse_space(space)
        try:
            ordered = in_order(whole_space(params, data.get("augmentations")))
        except ValueError:
            return
        idle = [
            name
            for name in params
            if name not in names
            and not names.isdisjoint({*ancestors(name, ordered), *parents_of(name, params[name])})
            and effect_problem(name, ordered) is not None
        ]
        if not idle:
            return
        for name in idle:
            del space[name]
        names |= set(idle)


def _release_combinations(data: dict[str, Any], gone: set[str]) -> None:
    """No trial has a combination that names a parameter which has left the space."""
    combinations = data.get("forbid")
    if gone and isinstance(combinations, list):
        data["forbid"] = [each for each in combinations if not isinstance(each, dict) or not gone.intersection(each)]


def _release_starting_points(data: dict[str, Any], names: set[str]) -> None:
    recipes = data.get("start_from")
    if not isinstance(recipes, list):
        return
    params, _ = parse_space(data["space"])
    whole = whole_space(params, data.get("augmentations"))
    for recipe in recipes:
        if names_a_run(recipe):
            _release_mapped(recipe, names - set(whole))
            continue
        values, _ = parse_recipe(recipe)
        for name in values:
            lost = name not in whole and (name in names or (name.startswith(PREFIX) and "augment" in names))
            if lost or (name in names and any(recipe_problems({name: values[name]}, whole))):
                del recipe[name]
    data["start_from"] = [recipe for recipe in recipes if recipe != {}]


def _release_mapped(run: Any, gone: set[str]) -> None:
    """No parameter of an earlier run stands for one that has left the space."""
    mapped = run.get("map") if isinstance(run, dict) else None
    if isinstance(mapped, dict):
        run["map"] = {there: here for there, here in mapped.items() if here not in gone}


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
