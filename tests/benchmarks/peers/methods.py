"""Which search methods are compared? Each runs one task with one seed on the virtual clock."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, SuccessiveHalvingPruner
from optuna.samplers import TPESampler

from search.algorithm_config import SamplerConfig, SchedulerConfig
from search.simulation import SimulatedSearch, simulate
from search.virtual_clock import Driver, Trace, replay
from tests.benchmarks.curve_sources import Benchmark
from tests.benchmarks.peers.optuna_loop import OptunaLoop
from tests.benchmarks.peers.random_search import RandomSearch
from tests.benchmarks.peers.ray_optuna import ray_optuna

RANDOM = "random search"
OURS = "vistune"


@dataclass(frozen=True)
class Conditions:
    """Under which a method is run.

    Attributes:
        until_s: end of the search in virtual seconds.
        target: end of the search once a trial has this value.
    """

    benchmark: Benchmark
    seed: int
    devices: int
    until_s: float
    target: float = field(default=float("inf"))


Method = Callable[[Conditions], Trace]


def ours(conditions: Conditions, *, sampler: Mapping[str, Any], scheduler: Mapping[str, Any]) -> Trace:
    """Vistune with these settings; whatever they do not name has its default."""
    task = conditions.benchmark
    search = SimulatedSearch(
        space=task.space,
        sampler=SamplerConfig(seed=conditions.seed, **sampler),
        scheduler=SchedulerConfig(max_epochs=task.max_epochs, **scheduler),
    )
    return simulate(
        search,
        task.curves(),
        devices=conditions.devices,
        until_s=conditions.until_s,
        target=conditions.target,
    ).trace


def _replayed(make: Callable[[Conditions], Driver], conditions: Conditions) -> Trace:
    return replay(
        make(conditions),
        conditions.benchmark.curves(),
        devices=conditions.devices,
        until_s=conditions.until_s,
        target=conditions.target,
    )


def _optuna(conditions: Conditions, *, pruner: Callable[[int], BasePruner]) -> Driver:
    sampler = TPESampler(seed=conditions.seed)
    pruned_by = pruner(conditions.benchmark.max_epochs)
    return OptunaLoop(conditions.benchmark.space, sampler=sampler, pruner=pruned_by)


def _ray(conditions: Conditions) -> Driver:
    task = conditions.benchmark
    return ray_optuna(task.space, max_epochs=task.max_epochs, devices=conditions.devices, seed=conditions.seed)


def _syne_tune(conditions: Conditions, *, scheduler: str, reduction_factor: int = 3) -> Driver:
    from tests.benchmarks.peers.syne_tune_loop import SyneTuneLoop  # an extra of its own

    task = conditions.benchmark
    return SyneTuneLoop(
        task.space,
        scheduler=scheduler,
        max_epochs=task.max_epochs,
        seed=conditions.seed,
        reduction_factor=reduction_factor,
    )


def _random(conditions: Conditions) -> Driver:
    return RandomSearch(conditions.benchmark.space, seed=conditions.seed)


def _halving(max_epochs: int) -> BasePruner:
    del max_epochs
    return SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)


def _hyperband(max_epochs: int) -> BasePruner:
    return HyperbandPruner(min_resource=1, max_resource=max_epochs, reduction_factor=3)


# As in the paper, and as Syne Tune has it.
_ASHA_OF_3 = {"reduction_factor": 3, "rivals": None, "revisit": False}

METHODS: Mapping[str, Method] = {
    RANDOM: partial(_replayed, _random),
    OURS: partial(ours, sampler={}, scheduler={}),
    "vistune, cost_aware": partial(ours, sampler={"cost_aware": True}, scheduler={}),
    "vistune, forest, cost_aware": partial(ours, sampler={"name": "forest", "cost_aware": True}, scheduler=_ASHA_OF_3),
    "vistune, no revisit": partial(ours, sampler={}, scheduler={"revisit": False}),
    "vistune, ASHA of 3": partial(ours, sampler={}, scheduler=_ASHA_OF_3),
    "vistune, forest": partial(ours, sampler={"name": "forest"}, scheduler=_ASHA_OF_3),
    "vistune, tpe": partial(ours, sampler={"name": "tpe"}, scheduler=_ASHA_OF_3),
    "vistune, asha_promotion": partial(ours, sampler={}, scheduler={"name": "asha_promotion"}),
    "vistune, hyperband": partial(ours, sampler={}, scheduler={"name": "hyperband"}),
    "vistune, curves": partial(ours, sampler={}, scheduler={"name": "curves"}),
    "vistune, median": partial(ours, sampler={}, scheduler={"name": "median"}),
    "vistune, random + asha": partial(ours, sampler={"name": "random"}, scheduler=_ASHA_OF_3),
    "Ray OptunaSearch + ASHA": partial(_replayed, _ray),
    "Optuna TPE + successive halving": partial(_replayed, partial(_optuna, pruner=_halving)),
    "Optuna TPE + Hyperband": partial(_replayed, partial(_optuna, pruner=_hyperband)),
    "Syne Tune ASHA": partial(_replayed, partial(_syne_tune, scheduler="asha")),
    "Syne Tune ASHA + BORE": partial(_replayed, partial(_syne_tune, scheduler="bore")),
    "Syne Tune ASHA + CQR": partial(_replayed, partial(_syne_tune, scheduler="cqr")),
    "Syne Tune ASHA of 4 + CQR": partial(_replayed, partial(_syne_tune, scheduler="cqr", reduction_factor=4)),
    "Syne Tune BOHB": partial(_replayed, partial(_syne_tune, scheduler="bohb")),
}


def run(name: str, conditions: Conditions) -> Trace:
    """Runs a method by its name, without what the libraries have to say."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return METHODS[name](conditions)
