"""Who proposes the next trial? Optuna's samplers, made to see what the study knows."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.study import Study
from optuna.trial import FrozenTrial

from search.algorithm_config import SamplerConfig, SamplerName
from search.forest_sampler import ForestSampler
from search.sampler_views import FinishedTrials, distributions_of
from search.space import Space


def build_sampler(config: SamplerConfig, *, trials_so_far: int, space: Space | None = None) -> BaseSampler:
    """The configured sampler: Optuna's, or one of our own where it has none.

    Conditional parameters: tpe learns each group of parameters that occur together; gp takes an absent parameter for
    the middle of its domain; qmc has a coordinate for every parameter, whether a trial has it or not; cmaes learns the
    numbers that every trial has and draws the rest; nsga2 and nsga3 do likewise with all that every trial has.

    Args:
        trials_so_far: trials that the study has; a sampler seeded alike would propose the same points again after a
            resume. qmc and grid go on where they were.
        space: the whole space, which gp, qmc, grid and forest need; the others do without.

    Raises:
        ValueError: if the sampler needs a space and has none.
    """
    seed = int(np.random.SeedSequence([config.seed, trials_so_far]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if config.name in _WITH_SPACE:
            if space is None:
                raise ValueError(f"sampler.name: {config.name} needs the space, found none; pass space=")
            return _WITH_SPACE[config.name](config, seed, space)
        return _WITHOUT[config.name](config, seed)


class LearnsFromStopped(BaseSampler):
    """A sampler that looks at complete trials only, shown the stopped and the infeasible ones too.

    Under a scheduler that stops most trials it would otherwise learn from a few, or never begin.

    Args:
        fill: the space, when the sampler is to see every parameter in every trial.
    """

    def __init__(self, sampler: BaseSampler, *, fill: Space | None = None) -> None:
        self._sampler = sampler
        self._fill = fill
        self._seen: FinishedTrials | None = None

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(self._view(study), trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        with _one_thread():
            return self._sampler.sample_relative(self._view(study), trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(self._view(study), trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        self._sampler.reseed_rng()

    def _view(self, study: Study) -> FinishedTrials:
        if self._seen is None:
            self._seen = FinishedTrials(study, fill=self._fill)
        return self._seen


class WholeSpaceQmc(QMCSampler):
    """Sobol's sequence over all parameters of a space, from the first trial on.

    Optuna's takes the parameters of the first finished trial for the space, which with conditional parameters is a
    part of it; the others it would draw. How far the sequence has come is kept in the study.
    """

    def __init__(self, space: Space, *, seed: int) -> None:
        super().__init__(scramble=True, seed=seed, warn_independent_sampling=False)
        self._whole = distributions_of(space)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        del study, trial
        return self._whole


class GridSampler(BaseSampler):
    """Every combination of a finite space, in the order of `Space.combinations`; those the study has are passed over.

    Optuna's own grid knows no conditions and no forbidden combinations, and runs in random order.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._whole = distributions_of(space)
        self._left = space.combinations()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        del study, trial
        return self._whole

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        del search_space
        if "fixed_params" in trial.system_attrs:  # a starting point: it takes no place in the order
            return {}
        tried = {_key(each.params) for each in study.get_trials(deepcopy=False)}
        for combination in self._left:
            params = {name: combination[name] for name in self._space.searched if name in combination}
            if _key(params) not in tried:
                return params
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The first value: of a starting point what it left open, or of a trial after the last combination."""
        del study, trial, param_name
        return next(iter(_grid_of(param_distribution)))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keeps torch, in which the Gaussian process is computed, from taking the cores on which trials train."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch is not None else 0
    if torch is not None:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if torch is not None:
            torch.set_num_threads(before)


def _grid_of(distribution: BaseDistribution) -> tuple[Any, ...]:
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return tuple(distribution.choices)
    return (distribution.low,)  # type: ignore[attr-defined]


def _key(params: Mapping[str, Any]) -> frozenset[tuple[str, Any]]:
    return frozenset(params.items())


def _tpe(config: SamplerConfig, seed: int) -> BaseSampler:
    """Multivariate (it models parameters jointly) and grouped (conditional parameters each in their own space).

    Source: arXiv:2304.11127 on TPE and its options.
    """
    return TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=config.startup_trials)


def _cmaes(config: SamplerConfig, seed: int) -> BaseSampler:
    startup = max(1, config.startup_trials)  # without any, nothing is known of the space
    return LearnsFromStopped(CmaEsSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False))


def _gp(config: SamplerConfig, seed: int, space: Space) -> BaseSampler:
    startup = max(1, config.startup_trials)
    sampler = GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
    return LearnsFromStopped(sampler, fill=space)


_WITHOUT: Mapping[SamplerName, Callable[[SamplerConfig, int], BaseSampler]] = {
    "tpe": _tpe,
    "random": lambda config, seed: RandomSampler(seed=seed),  # noqa: ARG005
    "cmaes": _cmaes,
    "nsga2": lambda config, seed: LearnsFromStopped(NSGAIISampler(seed=seed, population_size=config.population_size)),
    "nsga3": lambda config, seed: LearnsFromStopped(NSGAIIISampler(seed=seed, population_size=config.population_size)),
}

_WITH_SPACE: Mapping[SamplerName, Callable[[SamplerConfig, int, Space], BaseSampler]] = {
    "gp": _gp,
    "qmc": lambda config, seed, space: WholeSpaceQmc(space, seed=config.seed),  # noqa: ARG005
    "grid": lambda config, seed, space: GridSampler(space),  # noqa: ARG005
    "forest": lambda config, seed, space: ForestSampler(space, seed=seed, startup_trials=config.startup_trials),
}
