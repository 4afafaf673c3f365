"""What does a sampler see of a study? Distributions of a whole space, and finished trials however they ended."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Collection, Container, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.dominance import Losses, ranked
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


class FewTrials(_View):
    """A study of which no more than some of the trials are shown: the best fifty, and the latest.

    Optuna's samplers go through all they are shown for every proposal: TPE takes 13 ms with a thousand trials and
    108 ms with eight thousand. Of a thousand it calls the best 25 good; of the others it learns where trials have been.

    Args:
        study: the real one, to which everything that is written goes.
        most: trials that are shown, above 50; None for all.
    """

    num_best = 50

    def __init__(self, study: Study, *, most: int | None = 1_000) -> None:
        super().__init__(study)
        self._most = sys.maxsize if most is None else most
        self._ended = NewlyEnded()
        self._best: list[FrozenTrial] = []

    def _view_of(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        return self._few_of(trials)

    def _few_of(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """Which of all trials are shown, by number; as they are."""
        if len(trials) <= self._most:
            return trials
        num_earlier = len(trials) - self._most + self.num_best
        fresh, _ = self._ended.look(trials[:num_earlier])
        if fresh:
            self._best = self._ranked([*self._best, *fresh])[: self.num_best]
        return [*sorted(self._best, key=lambda trial: trial.number), *trials[num_earlier:]]

    def _ranked(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """From the best on; stopped trials behind complete ones, as TPE has it."""
        by_number = {trial.number: trial for trial in trials}
        order = [by_number[number] for number in ranked({trial.number: self._losses(trial) for trial in trials})]
        return sorted(order, key=lambda trial: trial.state is not TrialState.COMPLETE)

    def _losses(self, trial: FrozenTrial) -> Losses:
        if trial.values is None or _violates(trial):
            return (math.inf,) * len(self.directions)
        return self._turned(trial.values)

    def _turned(self, values: Sequence[float]) -> Losses:
        """Values as losses, or losses as values."""
        return tuple(
            -value if direction is StudyDirection.MAXIMIZE else value
            for value, direction in zip(values, self.directions, strict=True)
        )


class FinishedTrials(FewTrials):
    """The same, in which every trial that tells something about its parameters looks complete.

    A stopped trial has the best value that it reached. An infeasible one (forbidden, or out of memory) has the worst
    value of all, and violates a constraint. Other failures say nothing about the parameters, and are not shown.

    Args:
        study: the real one, to which everything that is written goes.
        fill: a space; a parameter that a trial lacks is then shown as the middle of its domain, as in SMAC
            (arXiv:2109.09831), so that all trials have all parameters.
        most: trials that are shown, above 50; None for all.
    """

    def __init__(self, study: Study, *, fill: Space | None, most: int | None = 1_000) -> None:
        super().__init__(study, most=most)
        self._whole = {} if fill is None else distributions_of(fill)
        self._middle = {name: middle_of(each) for name, each in self._whole.items()}
        # A sampler that wants all of thousands of trials asks at every proposal: what is shown of each is made once.
        self._known: dict[int, FrozenTrial] = {}
        self._shown: dict[int, FrozenTrial] = {}
        self._infeasible: set[int] = set()
        self._worst: Losses = ()

    def _view_of(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        trials = self._few_of(trials)
        changed = [trial for trial in trials if self._known.get(trial._trial_id) is not trial]
        before = bool(self._infeasible), self._worst
        for trial in changed:
            self._learn(trial)
        if (bool(self._infeasible), self._worst) != before:
            changed = trials
        self._shown.update((trial._trial_id, self._shown_as(trial)) for trial in changed)
        return [self._shown[trial._trial_id] for trial in trials]

    def _learn(self, trial: FrozenTrial) -> None:
        self._known[trial._trial_id] = trial
        if trial.state.is_finished() and _violates(trial):
            self._infeasible.add(trial._trial_id)
        elif trial.values is not None:
            losses = self._turned(trial.values)
            self._worst = tuple(map(max, self._worst, losses)) if self._worst else losses

    def _shown_as(self, trial: FrozenTrial) -> FrozenTrial:
        if trial._trial_id in self._infeasible:
            return self._complete(trial, values=self._turned(self._worst or (0.0,) * len(self.directions)))
        if not trial.state.is_finished() or trial.values is None:
            return trial
        return self._complete(trial, values=trial.values)

    def _complete(self, trial: FrozenTrial, *, values: Sequence[float]) -> FrozenTrial:
        shown = copy.copy(trial)
        shown.state = TrialState.COMPLETE
        shown.values = list(values)
        shown.params = {**self._middle, **trial.params}
        shown.distributions = {**self._whole, **trial.distributions}
        if self._infeasible:
            kept = {name: value for name, value in trial.system_attrs.items() if not name.startswith(_CONSTRAINT)}
            shown.system_attrs = {**kept, _INFEASIBLE: 1.0 if trial._trial_id in self._infeasible else 0.0}
        return shown


class NewlyEnded:
    """Which trials of a study have ended since the last look? So that no look goes through all that ever were."""

    def __init__(self) -> None:
        self._num_seen = 0
        self._open: list[int] = []

    def look(self, trials: Sequence[FrozenTrial]) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
        """Those that have ended since the last look, each in one answer only, and those that have not ended.

        Args:
            trials: of the study, by number; never fewer than before.
        """
        looked_at = [trials[number] for number in (*self._open, *range(self._num_seen, len(trials)))]
        self._num_seen = len(trials)
        still_open = [trial for trial in looked_at if not trial.state.is_finished()]
        self._open = [trial.number for trial in still_open]
        return [trial for trial in looked_at if trial.state.is_finished()], still_open


def complete_part(trial: FrozenTrial, names: Collection[str]) -> FrozenTrial:
    """A trial with a value as if it were complete, and had these parameters only."""
    shown = copy.copy(trial)
    shown.state = TrialState.COMPLETE
    shown.params = {name: trial.params[name] for name in names}
    shown.distributions = {name: trial.distributions[name] for name in names}
    return shown


class ProposesWholeSpace(BaseSampler):
    """A sampler that proposes values of every parameter of a space, whichever of them a trial turns out to have.

    Attributes:
        _whole: the distributions of all; set by the subclass.
    """

    _whole: dict[str, BaseDistribution]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        del study, trial
        return self._whole


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
