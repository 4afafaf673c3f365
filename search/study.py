"""How is a search kept? An Optuna study in an append-only journal, from which every record can be read again."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from search.config import SamplerConfig
from search.ledger import Status, TrialRecord
from search.space import Space
from trainables.config import METRIC_MODES, is_better

# User attribute of a finished trial: what its states and values cannot hold (fate, epochs, times, cause of failure).
OUTCOME = "outcome"

# User attribute of a trial that was proposed but never run, and why: the parameters had been run already, or the
# driver died before they were complete.
NOT_RUN = "not_run"

_STATES = {
    Status.COMPLETED: TrialState.COMPLETE,
    Status.STOPPED: TrialState.PRUNED,
    Status.OUT_OF_BUDGET: TrialState.PRUNED,
    Status.FAILED: TrialState.FAIL,
}


class StudyStore:
    """The study of one run, in terms of trial records.

    Stopped trials are PRUNED with their intermediate values and failed ones FAIL, so that the sampler learns what
    happened. A running trial is RUNNING, also after the driver was killed: that is how a resume finds it.
    """

    def __init__(self, path: Path, *, name: str, metric: str, sampler: SamplerConfig) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.metric = metric
        self._storage = JournalStorage(JournalFileBackend(str(path)))
        self.study = optuna.create_study(
            storage=self._storage,
            study_name=name,
            direction="maximize" if METRIC_MODES[metric] == "max" else "minimize",
            load_if_exists=True,
        )
        # A sampler seeded alike would propose the same points again after a resume, so the seed counts the trials.
        self.study.sampler = build_sampler(sampler, trials_so_far=len(self.study.get_trials(deepcopy=False)))

    def add_recipes(self, recipes: Iterable[Mapping[str, Any]], space: Space) -> None:
        """Has starting points tried first, if the study is new."""
        if not self.trials():
            enqueue_recipes(self.study, recipes, space)

    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def records(self) -> list[TrialRecord]:
        """Every trial that was run or is to be resumed, by number."""
        ran = [trial for trial in self.trials() if trial.state is not TrialState.WAITING]
        return [record_of(trial, metric=self.metric) for trial in ran if NOT_RUN not in trial.user_attrs]

    def add_epoch(self, number: int, *, epoch: int, value: float) -> None:
        """Adds an intermediate value to a running trial."""
        self._storage.set_trial_intermediate_value(self._trial_id(number), epoch, value)

    def finish(self, record: TrialRecord) -> None:
        """Closes a trial for good. The outcome is written first: a kill in between leaves it to be resumed."""
        outcome: dict[str, Any] = {
            "status": record.status.value,
            "best_epoch": record.best_epoch,
            "val_loss": record.val_loss,
            "train_s": round(record.train_s, 4),
            "images_per_s": record.images_per_s,
            "cause": record.cause,
            "message": record.message,
        }
        self._storage.set_trial_user_attr(self._trial_id(record.number), OUTCOME, outcome)
        state = _STATES[record.status]
        values = None if state is TrialState.FAIL or record.score is None else [record.score]
        self._storage.set_trial_state_values(self._trial_id(record.number), state, values)

    def discard(self, number: int, *, reason: str) -> None:
        """Closes a trial that was proposed but is not run."""
        self._storage.set_trial_user_attr(self._trial_id(number), NOT_RUN, reason)
        self._storage.set_trial_state_values(self._trial_id(number), TrialState.FAIL)

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)


def enqueue_recipes(study: optuna.Study, recipes: Iterable[Mapping[str, Any]], space: Space) -> None:
    """Has the searched parameters of each recipe proposed next, in that order; what it leaves out is sampled."""
    for recipe in recipes:
        study.enqueue_trial({name: value for name, value in recipe.items() if name in space.searched})


def record_of(trial: FrozenTrial, *, metric: str) -> TrialRecord:
    """What the study knows about one trial."""
    outcome: dict[str, Any] = trial.user_attrs.get(OUTCOME, {}) if trial.state.is_finished() else {}
    score: float | None = None
    best_epoch: int | None = None
    for epoch, value in sorted(trial.intermediate_values.items()):
        if is_better(value, score, metric=metric):
            score, best_epoch = value, epoch
    return TrialRecord(
        number=trial.number,
        params=dict(trial.params),
        status=Status(outcome.get("status", Status.FAILED if trial.state.is_finished() else Status.RUNNING)),
        curve=dict(sorted(trial.intermediate_values.items())),
        score=score,
        best_epoch=outcome.get("best_epoch", best_epoch),
        val_loss=outcome.get("val_loss"),
        train_s=outcome.get("train_s", 0.0),
        images_per_s=outcome.get("images_per_s"),
        cause=outcome.get("cause"),
        message=outcome.get("message"),
    )


def build_sampler(config: SamplerConfig, *, trials_so_far: int) -> BaseSampler:
    """The configured Optuna sampler.

    TPE is multivariate (it models parameters jointly) and grouped (conditional parameters each in their own space).

    Source: arXiv:2304.11127 on TPE and its options.
    """
    seed = int(np.random.SeedSequence([config.seed, trials_so_far]).generate_state(1)[0])
    if config.name == "random":
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=config.startup_trials)
