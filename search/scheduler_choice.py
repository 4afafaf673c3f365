"""Which trial scheduler does a search name? One constructor for each."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.algorithm_config import SchedulerConfig, SchedulerName
from search.asha import AshaScheduler
from search.curve_stopping import CurveScheduler
from search.hyperband import HyperbandScheduler
from search.median_stopping import MedianScheduler
from search.perturbation import perturb
from search.population import PopulationScheduler
from search.promotion import PromotionScheduler
from search.schedulers import FullScheduler
from search.space import Space


@dataclass(frozen=True)
class _Search:
    """What a scheduler may need to know of the search."""

    config: SchedulerConfig
    metric: str
    objectives: Sequence[str]
    space: Space
    seed: int

    @property
    def halving(self) -> dict[str, Any]:
        rungs = self.config.model_dump(include={"grace_period", "reduction_factor", "max_epochs"})
        return {"metric": self.metric, "objectives": self.objectives, **rungs}


def build_scheduler(
    config: SchedulerConfig, *, metric: str, objectives: Sequence[str] = (), space: Space, seed: int
) -> FullScheduler:
    """The configured trial scheduler; what earlier sessions recorded it learns by `take_up`.

    Args:
        objectives: what trials are compared by besides the metric; only successive halving is defined for any.
        seed: of what it draws; only pbt does.
    """
    return _BUILD[config.name](_Search(config=config, metric=metric, objectives=objectives, space=space, seed=seed))


def _curves(search: _Search) -> FullScheduler:
    return CurveScheduler(
        metric=search.metric,
        **search.config.model_dump(include={"max_epochs", "grace_period", "min_trials", "threshold"}),
    )


def _population(search: _Search) -> FullScheduler:
    config = search.config

    def move(params: Mapping[str, Any], rng: random.Random) -> dict[str, Any]:
        return perturb(params, search.space, rng=rng, resample=config.resample)

    return PopulationScheduler(
        metric=search.metric,
        max_epochs=config.max_epochs,
        interval=config.interval or max(1, config.max_epochs // 10),
        grace_period=config.grace_period,
        population=config.population,
        quantile=config.quantile,
        perturb=move,
        seed=search.seed,
    )


_BUILD: Mapping[SchedulerName, Callable[[_Search], FullScheduler]] = {
    "none": lambda search: FullScheduler(metric=search.metric, objectives=search.objectives),
    "asha": lambda search: AshaScheduler(**search.halving, rivals=search.config.rivals, revisits=search.config.revisit),
    "asha_promotion": lambda search: PromotionScheduler(**search.halving),
    "hyperband": lambda search: HyperbandScheduler(**search.halving),
    "median": lambda search: MedianScheduler(
        metric=search.metric, **search.config.model_dump(include={"grace_period", "min_trials"})
    ),
    "curves": _curves,
    "pbt": _population,
}
