"""Which trial scheduler does a search name? One constructor for each."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
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
    space: Space
    seed: int

    @property
    def rungs(self) -> dict[str, int]:
        return self.config.model_dump(include={"grace_period", "reduction_factor", "max_epochs"})


def build_scheduler(config: SchedulerConfig, *, metric: str, space: Space, seed: int) -> FullScheduler:
    """The configured trial scheduler; what earlier sessions recorded it learns by `take_up`.

    Args:
        seed: of what it draws; only pbt does.
    """
    return _BUILD[config.name](_Search(config=config, metric=metric, space=space, seed=seed))


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
    "none": lambda search: FullScheduler(metric=search.metric),
    "asha": lambda search: AshaScheduler(metric=search.metric, **search.rungs),
    "asha_promotion": lambda search: PromotionScheduler(metric=search.metric, **search.rungs),
    "hyperband": lambda search: HyperbandScheduler(metric=search.metric, **search.rungs),
    "median": lambda search: MedianScheduler(
        metric=search.metric, **search.config.model_dump(include={"grace_period", "min_trials"})
    ),
    "curves": _curves,
    "pbt": _population,
}
