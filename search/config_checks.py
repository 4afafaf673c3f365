"""Do the sections of a search fit together? Each check uses what is sound, so that one mistake hides no other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from search.config_errors import Problem, found, raise_problems, unknown_key
from search.domains import CategoricalDomain, Domain, Param, Scalar
from search.parameters import parse_recipe, parse_space, recipe_problems
from search.space import Space
from trainables.config import BUILTIN_AUGMENTATIONS, Hyperparameters
from trainables.nearest import nearest


def parse_whole_space(raw: Any) -> dict[str, Param]:
    """The section `space`, for a pydantic validator."""
    params, problems = parse_space(raw)
    raise_problems("space", problems)
    return params


def dump_space(params: dict[str, Param]) -> dict[str, Any]:
    """The section `space` as plain data."""
    return {name: _dump_param(param) for name, param in params.items()}


def _dump_param(param: Param) -> Any:
    if not isinstance(param, Domain):
        return param
    dumped = param.model_dump()
    step = dumped.pop("step", None)
    return {"type": dumped.pop("type"), **dumped} | ({} if step is None else {"step": step})


def parse_start_from(raw: Any) -> tuple[dict[str, Scalar], ...]:
    """The section `start_from`, for a pydantic validator; whether it lies in the space is checked across."""
    if not isinstance(raw, list | tuple):
        raise ValueError(f"must be a list of starting points, found {found(raw)}; write - {{lr: 1e-3}}")
    parsed = [parse_recipe(recipe) for recipe in raw]
    raise_problems("start_from", (problem.under(index) for index, (_, wrong) in enumerate(parsed) for problem in wrong))
    return tuple(recipe for recipe, _ in parsed)


def cross_problems(data: Mapping[str, Any]) -> list[Problem]:
    """What is wrong between sections.

    Args:
        data: the whole search before validation; parts that are wrong in themselves are passed over.
    """
    params, wrong = parse_space(data.get("space"))
    problems = [
        *_augment_problems(params, data.get("augmentations", {})),
        *_epoch_problems(params, data.get("scheduler")),
        *_start_problems(data.get("start_from", ()), params, data.get("space")),
    ]
    if not wrong:
        problems += _budget_problems(params, data.get("budget"))
    return problems


def _augment_problems(params: Mapping[str, Param], pipelines: Any) -> Iterator[Problem]:
    if not isinstance(pipelines, Mapping):
        return
    known = [*BUILTIN_AUGMENTATIONS, *pipelines]
    for problem_loc, value in _values(params, "augment"):
        if value not in known:
            matches = nearest(str(value), known, count=1)
            remedy = f"write {matches[0]}" if matches else f"write one of {', '.join(known)}"
            text = f"unknown augmentation, found {value!r}; {remedy}, or describe it in the section augmentations"
            yield Problem(problem_loc, text)


def _epoch_problems(params: Mapping[str, Param], scheduler: Any) -> Iterator[Problem]:
    max_epochs = _part(scheduler, "max_epochs")
    if not _is_count(max_epochs):
        return
    grace_period = _part(scheduler, "grace_period")
    if _is_count(grace_period) and grace_period > max_epochs:
        text = f"must be at most max_epochs, found {grace_period} of {max_epochs} epochs; write {max_epochs} or less"
        yield Problem(("scheduler", "grace_period"), text)
    for loc, value in _values(params, "warmup_epochs"):
        if isinstance(value, int | float) and value >= max_epochs:
            text = f"must be below scheduler.max_epochs, found {value:g} of {max_epochs} epochs; write a smaller number"
            yield Problem(loc, text)


def _start_problems(recipes: Any, params: Mapping[str, Param], written: Any) -> Iterator[Problem]:
    if not isinstance(recipes, list | tuple) or not isinstance(written, Mapping):
        return
    for index, raw in enumerate(recipes):
        recipe, _ = parse_recipe(raw)
        problems = list(recipe_problems(recipe, params))
        for name in recipe:
            if name not in written:
                text = unknown_key(name, written).replace("unknown key", "is not in the space", 1)
                default = Hyperparameters.model_fields[name].default
                text += f"; add {name} to the space, or leave it at {default}"
                problems.append(Problem((name,), text))
        yield from (problem.under("start_from", index) for problem in problems)


def _budget_problems(params: Mapping[str, Param], budget: Any) -> Iterator[Problem]:
    if budget is not None and any(_part(budget, key) is not None for key in ("trials", "epochs", "time")):
        return
    if Space(params).num_combinations is None:
        text = "the space has no end, found no limit; add trials: 60, epochs: 1000 or time: 30m"
        yield Problem(("budget",), text)


def _values(params: Mapping[str, Param], name: str) -> Iterator[tuple[tuple[str | int, ...], Scalar]]:
    """The values of a parameter with their places; of a range its highest."""
    if name not in params:
        return
    param = params[name]
    if isinstance(param, CategoricalDomain):
        yield from ((("space", name, "values", index), value) for index, value in enumerate(param.values))
    elif isinstance(param, Domain):
        yield ("space", name, "high"), param.high
    else:
        yield ("space", name), param


def _part(section: Any, key: str) -> Any:
    """A value of a section that may be unvalidated data or already a model."""
    return section.get(key) if isinstance(section, Mapping) else getattr(section, key, None)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
