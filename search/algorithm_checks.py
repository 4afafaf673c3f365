"""Do sampler and scheduler suit the space? What they need of it, checked before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from search.algorithm_config import SamplerName, SchedulerName
from search.conditions import parents_of
from search.config_errors import Problem
from search.domains import CategoricalDomain
from search.perturbation import is_changeable
from search.space import Space

_FEWEST_FOR_CMAES = 2


# What is defined for several objectives.
_SAMPLERS_FOR_SEVERAL = ("curve_gp", "forest", "tpe", "gp", "nsga2", "nsga3", "qmc", "random", "grid")
_SCHEDULERS_FOR_SEVERAL = ("asha", "asha_promotion", "hyperband", "none")


def algorithm_problems(space: Space, *, sampler: Any, scheduler: Any, metric: Any = None) -> list[Problem]:
    """Why a space cannot be searched with a sampler and a scheduler; empty when it can.

    Args:
        sampler: the name of the sampler; anything unknown is passed over.
        scheduler: the name of the scheduler; as well.
        metric: what the search improves; a list of more than one is several objectives.
    """
    checks = {"grid": _grid_problems, "cmaes": _cmaes_problems}
    problems = list(checks[sampler](space)) if isinstance(sampler, str) and sampler in checks else []
    if scheduler == "pbt" and not any(is_changeable(name) for name in space.searched):
        text = (
            f"pbt changes parameters while a trial trains, found none among {_listed(space.searched)} that can; "
            "search for instance lr or weight_decay, or write name: asha"
        )
        problems.append(Problem(("scheduler", "name"), text))
    if isinstance(metric, list | tuple) and len(metric) > 1:
        problems += _several_problems(sampler=sampler, scheduler=scheduler)
    return problems


def fixed_numeric_parameters(space: Space) -> list[str]:
    """The searched numbers that every trial of a space has."""
    domains = space.domains
    return [
        name
        for name, domain in domains.items()
        if not isinstance(domain, CategoricalDomain)
        and not any(parent in domains for parent in parents_of(name, domain))
    ]


def _several_problems(*, sampler: Any, scheduler: Any) -> Iterator[Problem]:
    for section, name, known, fit in (
        ("sampler", sampler, get_args(SamplerName), _SAMPLERS_FOR_SEVERAL),
        ("scheduler", scheduler, get_args(SchedulerName), _SCHEDULERS_FOR_SEVERAL),
    ):
        if name in known and name not in fit:
            text = (
                f"{name} takes one objective, found several in task.metric; write one of {', '.join(fit)}, or keep one "
                "metric"
            )
            yield Problem((section, "name"), text)


def _grid_problems(space: Space) -> Iterator[Problem]:
    endless = [name for name, domain in space.domains.items() if domain.num_values is None]
    if endless:
        text = (
            f"grid needs a finite space, found {_listed(endless)} without a step; give each a step or values, or "
            "write name: qmc"
        )
        yield Problem(("sampler", "name"), text)


def _cmaes_problems(space: Space) -> Iterator[Problem]:
    numeric = fixed_numeric_parameters(space)
    if len(numeric) < _FEWEST_FOR_CMAES:
        text = (
            f"cmaes needs two or more numbers that every trial has, found {_listed(numeric)}; search more of them, or "
            "write name: tpe"
        )
        yield Problem(("sampler", "name"), text)


def _listed(names: Any) -> str:
    return ", ".join(names) or "none"
