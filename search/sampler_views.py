"""What does a sampler see of a study? Distributions of a whole space, and finished trials however they ended."""

from __future__ import annotations

import copy
import heapq
import math
from collections.abc import Collection, Container, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.scalars import Scalar
from search.space import Space

# The constraint under which an infeasible trial is shown; one name for all, as Gaussian processes want every trial to
# have the same ones.
_INFEASIBLE = "constraints:infeasible"
_CONSTRAINT = "constraints:"


class _View(Study):
    """A study that shows its trials as `_view_of` has them; everything that is written goes to the real one."""

    def __init__(self, study: Study) -> None:
        super().__init__(study.study_name, study._storage, sampler=study.sampler, pruner=study.pruner)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        del use_cache  # a resumed trial may be anywhere in the list
        trials = self._view_of(self._storage.get_all_trials(self._study_id, deepcopy=False))
        shown = [trial for trial in trials if states is None or trial.state in states]
        return copy.deepcopy(shown) if deepcopy else shown

    def _view_of(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """What is shown of all trials, by number; they belong to the storage and are not changed."""
        raise NotImplementedError


class FinishedTrials(_View):
    """A study in which every trial that tells something about its parameters looks complete.

    A stopped trial has the best value that it reached. An infeasible one (forbidden, or out of memory) has the worst
    value of all, and violates a constraint. Other failures say nothing about the parameters, and are not shown.

    Args:
        study: the real one, to which everything that is written goes.
        fill: a space; a parameter that a trial lacks is then shown as the middle of its domain, as in SMAC
            (arXiv:2109.09831), so that all trials have all parameters.
    """

    def __init__(self, study: Study, *, fill: Space | None) -> None:
        super().__init__(study)
        self._whole = {} if fill is None else distributions_of(fill)
        self._middle = {name: middle_of(each) for name, each in self._whole.items()}

    def _view_of(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        infeasible = {trial.number for trial in trials if trial.state.is_finished() and _violates(trial)}
        values = [trial.values for trial in trials if trial.number not in infeasible and trial.values is not None]
        worst = [
            (min if direction is StudyDirection.MAXIMIZE else max)((each[index] for each in values), default=0.0)
            for index, direction in enumerate(self.directions)
        ]
        return [self._shown(trial, infeasible=infeasible, worst=worst) for trial in trials]

    def _shown(self, trial: FrozenTrial, *, infeasible: Container[int], worst: list[float]) -> FrozenTrial:
        ruled_out = trial.number in infeasible
        if not trial.state.is_finished() or (trial.values is None and not ruled_out):
            return trial
        shown = copy.copy(trial)
        shown.state = TrialState.COMPLETE
        shown.values = worst if ruled_out else trial.values
        shown.params = {**self._middle, **trial.params}
        shown.distributions = {**self._whole, **trial.distributions}
        if infeasible:
            kept = {name: value for name, value in trial.system_attrs.items() if not name.startswith(_CONSTRAINT)}
            shown.system_attrs = {**kept, _INFEASIBLE: 1.0 if ruled_out else 0.0}
        return shown


class FewTrials(_View):
    """A study of one objective of which no more than a thousand trials are shown: the best fifty and the latest.

    Optuna's TPE goes through all it is shown for every proposal, 13 ms with a thousand trials and 108 ms with eight
    thousand. Of these it calls the best 25 good; of the others it learns where trials have been.
    """

    most, num_best = 1_000, 50

    def __init__(self, study: Study) -> None:
        super().__init__(study)
        self._best: list[FrozenTrial] = []
        self._num_ranked = 0

    def _view_of(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        if len(trials) <= self.most:
            return trials
        num_earlier = len(trials) - self.most + self.num_best
        fresh = trials[self._num_ranked : num_earlier]
        self._best = heapq.nlargest(self.num_best, [*self._best, *fresh], key=self._rank)
        self._num_ranked = num_earlier
        return [*sorted(self._best, key=lambda trial: trial.number), *trials[num_earlier:]]

    def _rank(self, trial: FrozenTrial) -> tuple[bool, float]:
        sign = 1.0 if self.direction is StudyDirection.MAXIMIZE else -1.0
        return trial.state is TrialState.COMPLETE, -math.inf if trial.value is None else sign * trial.value


def complete_part(trial: FrozenTrial, names: Collection[str]) -> FrozenTrial:
    """A trial with a value as if it were complete, and had these parameters only."""
    shown = copy.copy(trial)
    shown.state = TrialState.COMPLETE
    shown.params = {name: trial.params[name] for name in names}
    shown.distributions = {name: trial.distributions[name] for name in names}
    return shown


def distributions_of(space: Space) -> dict[str, BaseDistribution]:
    """Optuna's distribution of every searched parameter, whether a trial has it or not."""
    recorder = _Recorder()
    for name, domain in space.domains.items():
        domain.suggest(recorder, name)
    return recorder.distributions


def middle_of(distribution: BaseDistribution) -> Any:
    """A value from the middle of a domain: of its logarithm where it is searched so; of a list the first."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = distribution.low, distribution.high
    middle = math.sqrt(low * high) if distribution.log else (low + high) / 2
    if distribution.step is not None and not distribution.log:
        middle = low + round((middle - low) / distribution.step) * distribution.step
    return round(middle) if isinstance(distribution, IntDistribution) else middle


def _violates(trial: FrozenTrial) -> bool:
    return any(value > 0 for value in trial.constraints.values())


class _Recorder:
    """A `Suggester` that notes the distributions it is asked for."""

    def __init__(self) -> None:
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """The lowest value."""
        self.distributions[name] = FloatDistribution(low, high, step=step, log=log)
        return low

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """The lowest value."""
        self.distributions[name] = IntDistribution(low, high, step=step, log=log)
        return low

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """The first choice."""
        self.distributions[name] = CategoricalDistribution(tuple(choices))
        return choices[0]
