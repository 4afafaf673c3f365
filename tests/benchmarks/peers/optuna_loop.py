"""Optuna's own loop: ask, report, prune, tell."""

from __future__ import annotations

from collections.abc import Hashable

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from search.space import Space
from search.virtual_clock import Job, Report


class OptunaLoop:
    """What `study.optimize` does with an objective that reports every epoch and returns its best value."""

    over = False

    def __init__(self, space: Space, *, sampler: BaseSampler, pruner: BasePruner) -> None:
        self._space = space
        self._study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
        self._running: dict[Hashable, optuna.Trial] = {}

    def next_job(self) -> Job:
        trial = self._study.ask()
        self._running[trial.number] = trial
        return Job(trial.number, self._space.suggest(trial))

    def report(self, key: Hashable, report: Report) -> bool:
        trial = self._running[key]
        if report.diverged:
            self._study.tell(trial, state=TrialState.FAIL)
            return False
        trial.report(report.value, report.epoch)
        if report.last:
            self._study.tell(trial, report.score)
        elif trial.should_prune():
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            return True
        del self._running[key]
        return False
