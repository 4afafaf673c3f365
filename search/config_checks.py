"""Do the sections of a search fit together? Each check uses what is sound, so that one mistake hides no other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from search.algorithm_checks import algorithm_problems
from search.config_errors import Problem, raise_problems, unknown_key
from search.domains import CategoricalDomain, Domain, Param, dump_param
from search.forbid import parse_forbid
from search.parameters import parse_recipe, parse_space, recipe_problems
from search.pipeline_params import PipelineParam, pipeline_params, searched_arguments
from search.resources_config import DEFAULT
from search.scalars import Scalar
from search.scaling import scaling_problems
from search.space import Space
from search.space_checks import Places, condition_problems, forbid_problems
from search.start_from import entries_of, map_problems, names_a_run
from trainables.hyperparameters import BUILTIN_AUGMENTATIONS, Hyperparameters
from trainables.nearest import nearest

# To find a combination that is not forbidden.
_DRAWS = 200


def parse_whole_space(raw: Any) -> dict[str, Param]:
    """The section `space`, for a pydantic validator."""
    params, problems = parse_space(raw)
    raise_problems("space", problems)
    return params


def dump_space(params: dict[str, Param]) -> dict[str, Any]:
    """The section `space` as plain data."""
    return {name: dump_param(param) for name, param in params.items()}


def cross_problems(data: Mapping[str, Any]) -> list[Problem]:
    """What is wrong between sections.

    Args:
        data: the whole search before validation; parts that are wrong in themselves are passed over.
    """
    params, wrong = parse_space(data.get("space"))
    arguments = pipeline_params(data.get("augmentations"))
    problems = [
        *_augment_problems(params, data.get("augmentations", {})),
        *_epoch_problems(params, data.get("scheduler")),
        *_workers_problems(params, _part(data.get("resources"), "workers")),
        *_start_problems(data.get("start_from", ()), params, data),
        *scaling_problems(params),
    ]
    if not wrong and not any(each.problems for each in arguments):
        problems += _whole_space_problems(params, arguments, data)
    return problems


def _whole_space_problems(
    params: Mapping[str, Param], arguments: Sequence[PipelineParam], data: Mapping[str, Any]
) -> Iterator[Problem]:
    """What needs every parameter to be sound: conditions first, and what is said about combinations after them."""
    whole = whole_space(params, data.get("augmentations"))
    places = Places({each.name: ("augmentations", *each.loc) for each in arguments})
    problems = condition_problems(whole, places)
    yield from problems
    try:
        forbid = parse_forbid(data.get("forbid", ()))
    except ValueError:
        return  # told where the section is parsed
    if problems:
        return
    banned = forbid_problems(forbid, whole)
    yield from banned
    if banned:
        return
    space = Space(whole, forbid=forbid)
    yield from _weights_problems(space)
    yield from algorithm_problems(
        space,
        sampler=_part(data.get("sampler"), "name"),
        scheduler=_part(data.get("scheduler"), "name"),
        metric=_part(data.get("task"), "metric"),
    )
    yield from _budget_problems(space, data.get("budget"))
    yield from _start_space_problems(space, data.get("start_from", ()))


def whole_space(params: Mapping[str, Param], pipelines: Any) -> dict[str, Param]:
    """The parameters of the section `space`, and the searched arguments of the pipelines that it names."""
    return {**params, **searched_arguments(pipelines, params.get("augment"))}


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
    first_rung = grace_period if _is_count(grace_period) else 1
    if _is_count(grace_period) and grace_period > max_epochs:
        text = f"must be at most max_epochs, found {grace_period} of {max_epochs} epochs; write {max_epochs} or less"
        yield Problem(("scheduler", "grace_period"), text)
    elif _part(scheduler, "fidelity") in ("data_fraction", "image_size") and first_rung >= max_epochs:
        found_there = f"grace_period {first_rung} of {max_epochs} epochs"
        text = f"rises at the rungs, found none below max_epochs with {found_there}; lower grace_period"
        yield Problem(("scheduler", "fidelity"), text)
    for loc, value in _values(params, "warmup_epochs"):
        if isinstance(value, int | float) and value >= max_epochs:
            text = f"must be below scheduler.max_epochs, found {value:g} of {max_epochs} epochs; write a smaller number"
            yield Problem(loc, text)


def _weights_problems(space: Space) -> Iterator[Problem]:
    params = {**space.fixed, **space.domains}
    if not any(value is True for _, value in _values(params, "pretrained")):
        return
    for local in (value for _, value in _values(params, "weights") if value is not None):
        # A condition or a forbidden combination may keep them apart.
        both = space.allowed({"weights": local, "pretrained": True}, draws=_DRAWS)
        if any("weights" in each and each.get("pretrained") for each in both):
            text = f"excludes pretrained: true, found weights: {local}; keep one of them"
            yield Problem(("space", "weights"), text)
            return


def _workers_problems(params: Mapping[str, Param], workers: Any) -> Iterator[Problem]:
    """Architectures that have workers of their own and are not in the space."""
    if not isinstance(workers, Mapping):
        return
    known = [str(value) for _, value in _values(params, "arch")] or [Hyperparameters.model_fields["arch"].default]
    for name in workers:
        if name != DEFAULT and name not in known:
            matches = nearest(str(name), known, count=1)
            remedy = f"write {matches[0]}" if matches else f"write default, or one of {', '.join(known)}"
            yield Problem(("resources", "workers", str(name)), f"is no architecture of space.arch; {remedy}")


def _start_problems(starts: Any, params: Mapping[str, Param], data: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with the values of starting points, one by one, and with what earlier runs are mapped to."""
    written = data.get("space")
    if not isinstance(written, Mapping):
        return
    whole = whole_space(params, data.get("augmentations"))
    unsound = [each.name for each in pipeline_params(data.get("augmentations")) if each.problems]
    known = list(dict.fromkeys([*written, *whole, *unsound]))
    yield from map_problems(starts, known)
    for index, raw in _recipes(starts):
        recipe, _ = parse_recipe(raw)
        problems = list(recipe_problems(recipe, whole))
        problems += [Problem((name,), _not_in_space(name, known)) for name in recipe if name not in known]
        yield from (problem.under("start_from", index) for problem in problems)


def _recipes(starts: Any) -> list[tuple[int, Any]]:
    """The entries of `start_from` that are no earlier runs, with their places."""
    return [(index, raw) for index, raw in enumerate(entries_of(starts) or ()) if not names_a_run(raw)]


def _not_in_space(name: str, known: Sequence[str]) -> str:
    text = unknown_key(name, known).replace("unknown key", "is not in the space", 1)
    if name not in Hyperparameters.model_fields:
        return text
    return f"{text}; add {name} to the space, or leave it at {Hyperparameters.model_fields[name].default}"


def _start_space_problems(space: Space, starts: Any) -> Iterator[Problem]:
    """Starting points whose values are right by themselves, and wrong beside each other."""
    known = {*space.searched, *space.fixed}
    for index, raw in _recipes(starts):
        recipe, wrong = parse_recipe(raw)
        if wrong or not recipe or not known.issuperset(recipe):
            continue
        if any(text is not None for text in (space.value_problem(name, value) for name, value in recipe.items())):
            continue
        text = space.contains(recipe, partial=True)
        if text is not None:
            name, _, sentence = text.partition(": ")
            yield Problem(("start_from", index, name), sentence)


def _budget_problems(space: Space, budget: Any) -> Iterator[Problem]:
    if budget is not None and any(
        _part(budget, key) is not None for key in ("trials", "epochs", "time", "device_hours")
    ):
        return
    if space.num_combinations is None:
        text = "the space has no end, found no limit; add trials: 60, epochs: 1000, time: 30m or device_hours: 8"
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
