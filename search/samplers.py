"""Who proposes the next trial? Optuna's samplers, made to see what the study knows."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import (
    BaseSampler,
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
from search.cmaes_sampler import WarmCmaEs
from search.curve_gp_sampler import CurveGpSampler
from search.curve_sampler import CurveSampler
from search.forest_sampler import ForestSampler
from search.generations import LatestGenerations
from search.sampler_views import (
    FewTrials,
    FinishedTrials,
    NewlyEnded,
    ProposesWholeSpace,
    distributions_of,
)
from search.space import Space


def build_sampler(
    config: SamplerConfig,
    *,
    trials_so_far: int,
    space: Space,
    several: bool = False,
    earlier: Sequence[FrozenTrial] = (),
) -> BaseSampler:
    """The configured sampler: Optuna's, or one of our own where it has none.

    Conditional parameters: tpe learns each group of parameters that occur together; gp takes an absent parameter for
    the middle of its domain; qmc has a coordinate for every parameter, whether a trial has it or not; cmaes learns the
    numbers that every trial has and draws the rest; nsga2 and nsga3 do likewise with all that every trial has.

    Args:
        trials_so_far: trials that the study has; a sampler seeded alike would propose the same points again after a
            resume. qmc and grid go on where they were.
        space: the whole space.
        earlier: the study's trials of earlier runs, for cmaes to begin where they were best; the others find them in
            the study.
        several: whether the study has several objectives.
    """
    seed = int(np.random.SeedSequence([config.seed, trials_so_far]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = (
            _cmaes(config, seed, earlier) if config.name == "cmaes" else _SAMPLERS[config.name](config, seed, space)
        )
    if config.name == "tpe":
        # Of pruned trials TPE reads the intermediate values, which Optuna has for one objective only.
        return LearnsFromStopped(sampler) if several else SeesView(sampler, FewTrials)
    return sampler


class SeesView(BaseSampler):
    """A sampler that is shown a view of the study in the study's place."""

    def __init__(self, sampler: BaseSampler, view: Callable[[Study], Study]) -> None:
        self._sampler = sampler
        self._make_view = view
        self._view: Study | None = None

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(self._shown(study), trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        with _one_thread():
            return self._sampler.sample_relative(self._shown(study), trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(self._shown(study), trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        self._sampler.reseed_rng()

    def _shown(self, study: Study) -> Study:
        if self._view is None:
            self._view = self._make_view(study)
        return self._view


class LearnsFromStopped(SeesView):
    """A sampler that looks at complete trials only, shown the stopped and the infeasible ones too.

    Under a scheduler that stops most trials it would otherwise learn from a few, or never begin.

    Args:
        fill: the space, when the sampler is to see every parameter in every trial.
        most: trials that it is shown in a long search.
    """

    def __init__(self, sampler: BaseSampler, *, fill: Space | None = None, most: int = 1_000) -> None:
        super().__init__(sampler, lambda study: FinishedTrials(study, fill=fill, most=most))


class WholeSpaceQmc(ProposesWholeSpace, QMCSampler):
    """Sobol's sequence over all parameters of a space, from the first trial on.

    Optuna's takes the parameters of the first finished trial for the space, which with conditional parameters is a
    part of it; the others it would draw. How far the sequence has come is kept in the study.
    """

    def __init__(self, space: Space, *, seed: int) -> None:
        super().__init__(scramble=True, seed=seed, warn_independent_sampling=False)
        self._whole = distributions_of(space)


class GridSampler(ProposesWholeSpace):
    """Every combination of a finite space, in the order of `Space.combinations`; those the study has are passed over.

    Optuna's own grid knows no conditions and no forbidden combinations, and runs in random order.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._whole = distributions_of(space)
        self._left = space.combinations()
        self._ended = NewlyEnded()
        self._tried: set[frozenset[tuple[str, Any]]] = set()

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        del search_space
        if "fixed_params" in trial.system_attrs:  # a starting point: it takes no place in the order
            return {}
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
        ended, still_open = self._ended.look(trials)
        self._tried.update(_key(each.params) for each in ended)
        underway = {_key(each.params) for each in still_open}
        for combination in self._left:
            params = {name: combination[name] for name in self._space.searched if name in combination}
            key = _key(params)
            if key not in self._tried and key not in underway:
                return params
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The first value: of a starting point what it left open, or of a trial after the last combination."""
        del study, trial, param_name
        return next(iter(_grid_of(param_distribution)))


def as_first_generation(config: SamplerConfig) -> dict[str, Any]:
    """System attributes with which a trial of an earlier run belongs to the first generation of nsga2 or nsga3."""
    kinds: dict[str, Any] = {"nsga2": NSGAIISampler, "nsga3": NSGAIIISampler}
    return {kinds[config.name]._get_generation_key(): 0} if config.name in kinds else {}


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


def _cmaes(config: SamplerConfig, seed: int, earlier: Sequence[FrozenTrial]) -> BaseSampler:
    startup = max(1, config.startup_trials)  # without any, nothing is known of the space
    return LearnsFromStopped(WarmCmaEs(earlier, seed=seed, startup_trials=startup))


def _gp(config: SamplerConfig, seed: int, space: Space) -> BaseSampler:
    startup = max(1, config.startup_trials)
    sampler = GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
    # With 400 trials a proposal takes 0.7 s, and more would take their cube of it.
    return LearnsFromStopped(sampler, fill=space, most=400)


def _curves(kind: type[CurveSampler], config: SamplerConfig, seed: int, space: Space) -> BaseSampler:
    return kind(space, seed=seed, startup_trials=config.startup_trials, cost_aware=config.cost_aware)


def _nsga(kind: type[NSGAIISampler | NSGAIIISampler], config: SamplerConfig, seed: int) -> BaseSampler:
    sampler = kind(seed=seed, population_size=config.population_size)
    return SeesView(sampler, lambda study: LatestGenerations(study, sampler=kind))


_SAMPLERS: Mapping[SamplerName, Callable[[SamplerConfig, int, Space], BaseSampler]] = {
    "curve_gp": partial(_curves, CurveGpSampler),
    "forest": partial(_curves, ForestSampler),
    "tpe": lambda config, seed, _: _tpe(config, seed),
    "gp": _gp,
    "qmc": lambda config, _, space: WholeSpaceQmc(space, seed=config.seed),
    "nsga2": lambda config, seed, _: _nsga(NSGAIISampler, config, seed),
    "nsga3": lambda config, seed, _: _nsga(NSGAIIISampler, config, seed),
    "random": lambda _, seed, __: RandomSampler(seed=seed),
    "grid": lambda _, __, space: GridSampler(space),
}
