"""Does each parameter of a space fit the field of `Hyperparameters` that it is named after?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError

from search.config_errors import Loc, Problem, found, problems_of, unknown_key
from search.domains import DOMAINS, CategoricalDomain, Domain, Param, dump_param, no_type, param_problem, parse_domain
from search.pipeline_params import PREFIX
from search.scalars import Scalar, one_scalar
from trainables.architectures import check_architecture
from trainables.errors import ConfigError
from trainables.hyperparameters import Hyperparameters
from trainables.nearest import nearest
from trainables.optimizer_names import check_optimizer

# What belongs to another section of the file.
_ELSEWHERE = {
    "max_epochs": "scheduler.max_epochs",
    "epochs": "scheduler.max_epochs",
    "num_epochs": "scheduler.max_epochs",
    "seed": "sampler.seed",
    "metric": "task.metric",
    "data": "task.data",
    "image_size": "task.data.image_size (the decoded images) or space.input_size (what the network sees)",
    "img_size": "task.data.image_size (the decoded images) or space.input_size (what the network sees)",
    "resolution": "task.data.image_size (the decoded images) or space.input_size (what the network sees)",
    "interpolation": "task.data.interpolation",
    "split": "task.split",
    "augmentations": "augmentations, a section of its own",
    "micro_batch_size": "resources.micro_batch_size",
    "accumulation_steps": "resources.micro_batch_size",
    "grad_accum_steps": "resources.micro_batch_size",
    "workers": "resources.workers",
}
# What other tools call our fields.
_SYNONYMS = {
    "learning_rate": "lr",
    "wd": "weight_decay",
    "model": "arch",
    "architecture": "arch",
    "bs": "batch_size",
    "opt": "optimizer",
    "drop_rate": "dropout",
    "drop": "dropout",
    "drop_path_rate": "drop_path",
    "stochastic_depth": "drop_path",
    "amp": "precision",
    "mixup": "mixup_alpha",
    "cutmix": "cutmix_alpha",
    "mixup_prob": "mix_prob",
    "smoothing": "label_smoothing",
    "ema": "ema_decay",
    "model_ema_decay": "ema_decay",
    "clip_grad": "grad_clip_norm",
    "grad_clip": "grad_clip_norm",
    "max_grad_norm": "grad_clip_norm",
    "sched": "lr_schedule",
    "lr_scheduler": "lr_schedule",
    "schedule": "lr_schedule",
    "early_stopping": "patience",
    "checkpoint": "weights",
    "reprob": "erasing",
    "random_erasing": "erasing",
    "criterion": "loss",
}


def parse_space(raw: object) -> tuple[dict[str, Param], list[Problem]]:
    """The parameters that are sound, and what is wrong with the others."""
    if not isinstance(raw, Mapping):
        return {}, [Problem((), f"must be a mapping, found {found(raw)}; write `name: domain` lines below it")]
    if not raw:
        return {}, [
            Problem((), "must hold a parameter, found none; add lr: {type: float, low: 1e-4, high: 0.1, log: true}")
        ]
    params: dict[str, Param] = {}
    problems: list[Problem] = []
    for name, value in raw.items():
        wrong = list(_name_problems(name))
        if not wrong:
            param, wrong = _parse_param(name, value)
            if not wrong:
                params[name] = param
        problems += [problem.under(name) for problem in wrong]
    return params, problems


def parse_recipe(raw: object) -> tuple[dict[str, Scalar], list[Problem]]:
    """The values of one starting point that are valid for their fields, and what is wrong with the others."""
    if not isinstance(raw, Mapping):
        return {}, [Problem((), f"must map parameters to values, found {found(raw)}; write - {{lr: 1e-3}}")]
    recipe: dict[str, Scalar] = {}
    problems: list[Problem] = []
    for name, value in raw.items():
        if str(name).startswith(PREFIX):  # an argument of a pipeline: whether there is one is checked across sections
            checked, text = _check_argument(value)
        else:
            wrong = [problem.text for problem in _name_problems(name)]
            checked, text = check_value(name, value) if not wrong else (None, wrong[0])
        if text is None:
            recipe[name] = checked
        else:
            problems.append(Problem((name,), text))
    return recipe, problems


def recipe_problems(recipe: Mapping[str, Scalar], params: Mapping[str, Param]) -> Iterator[Problem]:
    """What keeps a starting point, valid by itself, from lying within the space."""
    for name, value in recipe.items():
        if name in params:
            text = param_problem(params[name], value)
            if text is not None:
                yield Problem((name,), text)


def check_value(name: str, value: object) -> tuple[Scalar, str | None]:
    """A value as the field holds it, or why the field refuses it."""
    if isinstance(value, Mapping | list | tuple):
        return None, f"must be one value, found {found(value)}; write a single {_kind_in_words(name)}"
    try:
        checked: Scalar = getattr(Hyperparameters.model_validate({name: value}, strict=True), name)
    except ValidationError as error:
        return None, problems_of(error, Hyperparameters)[0].text
    try:
        if name == "arch":
            check_architecture(str(checked))
        if name == "optimizer":
            check_optimizer(str(checked))
    except ConfigError as error:
        return None, str(error)
    return checked, None


def _check_argument(value: object) -> tuple[Scalar, str | None]:
    try:
        one_scalar(value)
    except ValueError as error:
        return None, str(error)
    assert isinstance(value, Scalar)
    return value, None


def _name_problems(name: str) -> Iterator[Problem]:
    if name in Hyperparameters.model_fields:
        return
    if name in _ELSEWHERE:
        yield Problem((), f"is no parameter of the space, found {name!r}; it belongs to {_ELSEWHERE[name]}")
    elif name in _SYNONYMS:
        yield Problem((), f"unknown parameter, found {name!r}; write {_SYNONYMS[name]}")
    else:
        yield Problem((), unknown_key(name, Hyperparameters.model_fields).replace("key", "parameter", 1))


def _parse_param(name: str, raw: object) -> tuple[Param, list[Problem]]:
    if isinstance(raw, Domain):
        raw = dump_param(raw)
    if isinstance(raw, list | tuple):
        return None, [Problem((), "found a list without a type; write {type: categorical, values: [...]}")]
    if not isinstance(raw, Mapping):
        value, text = check_value(name, raw)
        return value, [] if text is None else [Problem((), text)]
    if "type" not in raw:
        return None, [no_type(raw, fitting_types(name))]
    if raw["type"] not in fitting_types(name):
        return None, [Problem(("type",), _wrong_type(name, raw["type"]))]
    problems = _checked_parts(name, raw)
    bad = {problem.loc for problem in problems}
    domain, own = parse_domain(raw)
    if domain is None:
        # Of two problems at one place, the domain's own comes first: it names the better remedy.
        told = {problem.loc for problem in own}
        return None, own + [problem for problem in problems if problem.loc not in told]
    if bad:
        return None, problems
    if isinstance(domain, CategoricalDomain):  # 0 among floats becomes the 0.0 that the trial will hold
        domain = domain.model_copy(update={"values": tuple(check_value(name, value)[0] for value in domain.values)})
    return domain, []


def _checked_parts(name: str, raw: Mapping[str, Any]) -> list[Problem]:
    """Bounds or values of a domain that the field would refuse."""
    parts: list[tuple[Loc, Any]] = [((key,), raw[key]) for key in ("low", "high") if key in raw]
    if raw["type"] == "categorical":
        values = raw.get("values")
        parts = (
            [(("values", index), value) for index, value in enumerate(values)]
            if isinstance(values, list | tuple)
            else []
        )
    checked = ((loc, check_value(name, value)[1]) for loc, value in parts)
    return [Problem(loc, text) for loc, text in checked if text is not None]


@cache
def kind_of(name: str) -> type[float] | type[int] | type[bool] | type[str]:
    """The type of a hyperparameter's values, without None."""
    annotation: Any = Hyperparameters.model_fields[name].annotation
    if get_origin(annotation) is Literal:
        return str
    if get_origin(annotation) in (UnionType, Union):  # ... | None
        annotation = next(part for part in get_args(annotation) if part is not NoneType)
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    kind: type[float] | type[int] | type[bool] | type[str] = annotation
    return kind


def _kind_in_words(name: str) -> str:
    return {float: "number", int: "whole number", bool: "true or false", str: "text"}[kind_of(name)]


def fitting_types(name: str) -> tuple[str, ...]:
    """The domains that give values of the field's type."""
    by_kind = {float: ("float", "int", "categorical"), int: ("int", "categorical")}
    return by_kind.get(kind_of(name), ("categorical",))


def _wrong_type(name: str, given: object) -> str:
    fitting = fitting_types(name)
    if isinstance(given, str) and given in DOMAINS:
        return f"{name} is a {_kind_in_words(name)}, found type: {given}; write type: {' or type: '.join(fitting)}"
    matches = nearest(str(given), fitting, count=1)
    remedy = " or type: ".join(matches or fitting)
    return f"must be {', '.join(fitting)}, found {found(given)}; write type: {remedy}"
