"""How is a search kept? An Optuna study in an append-only journal, from which every record can be read again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from search.algorithm_config import SamplerConfig
from search.draws import GivenDraw
from search.launch import OUT_OF_MEMORY
from search.ledger import Lineage, Status, TrialRecord
from search.sampler_views import distributions_of
from search.samplers import build_sampler
from search.space import Space
from trainables.metric_names import METRIC_MODES, is_better

# User attribute of a finished trial: what its states and values cannot hold (fate, epochs, times, cause of failure).
OUTCOME = "outcome"

# User attribute of a trial that was proposed but never run, and why: the parameters had been run already, or the
# driver died before they were complete.
NOT_RUN = "not_run"

# User attribute of a trial that took over another's weights: which, in whose place, and after which epoch.
LINEAGE = "lineage"

# User attribute of the study: seconds that the search has taken, over all its sessions.
ELAPSED_S = "elapsed_s"

# Constraints of a trial, as Optuna keeps them; above 0 the trial is infeasible. `optuna.Trial.set_constraint` writes
# the same, but only while a trial is at hand that was asked for in this process.
_CONSTRAINT = "constraints:"
_FORBIDDEN, _MEMORY = f"{_CONSTRAINT}forbidden", f"{_CONSTRAINT}memory"

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

    TPE looks at COMPLETE and PRUNED trials only. What a trial's parameters alone rule out is therefore PRUNED with a
    violated constraint, so that the sampler keeps away from its neighbourhood: forbidden combinations, and trials
    that ran out of memory. Their records say FAILED; other failures say nothing about the parameters, and are FAIL.

    Args:
        path: the journal; None keeps the study in memory only, for a simulation.
    """

    def __init__(
        self, path: Path | None, *, name: str, metric: str, sampler: SamplerConfig, space: Space | None = None
    ) -> None:
        self.metric = metric
        self._space = space
        self._storage: BaseStorage = InMemoryStorage()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._storage = JournalStorage(JournalFileBackend(str(path)))
        self.study = optuna.create_study(
            storage=self._storage,
            study_name=name,
            direction="maximize" if METRIC_MODES[metric] == "max" else "minimize",
            load_if_exists=True,
        )
        # A sampler seeded alike would propose the same points again after a resume, so the seed counts the trials.
        trials_so_far = len(self.study.get_trials(deepcopy=False))
        self.study.sampler = build_sampler(sampler, trials_so_far=trials_so_far, space=space)

    def add_recipes(self, recipes: Iterable[Mapping[str, Any]], space: Space) -> None:
        """Has starting points tried first, if the study is new."""
        if not self.trials():
            enqueue_recipes(self.study, recipes, space)

    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def records(self) -> list[TrialRecord]:
        """Every trial that was run or is to be resumed, by number."""
        ran = [trial for trial in self.trials() if trial.state is not TrialState.WAITING]
        return [
            record_of(trial, metric=self.metric, space=self._space) for trial in ran if NOT_RUN not in trial.user_attrs
        ]

    def add_heir(self, params: Mapping[str, Any], lineage: Lineage, *, space: Space) -> int:
        """Adds a running trial that goes on from another's weights; its number.

        The sampler had no part in it, and learns from it as from any other. All of it is one line of the journal.
        """
        whole = distributions_of(space)
        trial = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=dict(params),
            distributions={name: whole[name] for name in params},
            user_attrs={LINEAGE: asdict(lineage)},
        )
        trial_id = self._storage.create_new_trial(self.study._study_id, template_trial=trial)
        return self._storage.get_trial_number_from_id(trial_id)

    def add_epoch(self, number: int, *, epoch: int, value: float) -> None:
        """Adds an intermediate value to a running trial."""
        self._storage.set_trial_intermediate_value(self._trial_id(number), epoch, value)

    def note(self, record: TrialRecord) -> None:
        """Keeps what states and values cannot hold; of a trial that is paused or ends."""
        outcome: dict[str, Any] = {
            "status": record.status.value,
            "best_epoch": record.best_epoch,
            "val_loss": record.val_loss,
            "train_s": round(record.train_s, 4),
            "images_per_s": record.images_per_s,
            "cause": record.cause,
            "message": record.message,
            "accounted": record.accounted,
        }
        self._storage.set_trial_user_attr(self._trial_id(record.number), OUTCOME, outcome)

    def finish(self, record: TrialRecord) -> None:
        """Closes a trial for good. The outcome is written first: a kill in between leaves it to be resumed."""
        self.note(record)
        state = _STATES[record.status]
        values = None if state is TrialState.FAIL or record.score is None else [record.score]
        if record.status is Status.FAILED and record.cause == OUT_OF_MEMORY:
            self._storage.set_trial_system_attr(self._trial_id(record.number), _MEMORY, 1.0)
            state = TrialState.PRUNED
        self._storage.set_trial_state_values(self._trial_id(record.number), state, values)

    def discard(self, number: int, *, reason: str, forbidden: bool = False) -> None:
        """Closes a trial that was proposed but is not run.

        Args:
            forbidden: whether it must never run, so that the sampler learns to keep away.
        """
        self._storage.set_trial_user_attr(self._trial_id(number), NOT_RUN, reason)
        if forbidden:
            self._storage.set_trial_system_attr(self._trial_id(number), _FORBIDDEN, 1.0)
        state = TrialState.PRUNED if forbidden else TrialState.FAIL
        self._storage.set_trial_state_values(self._trial_id(number), state)

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)


def enqueue_recipes(study: optuna.Study, recipes: Iterable[Mapping[str, Any]], space: Space) -> None:
    """Has the searched parameters of each recipe proposed next, in that order; what it leaves out is sampled.

    A value of a parameter that does not exist beside what is sampled is passed over.
    """
    for recipe in recipes:
        study.enqueue_trial({name: value for name, value in recipe.items() if name in space.searched})


def record_of(trial: FrozenTrial, *, metric: str, space: Space | None = None) -> TrialRecord:
    """What the study knows about one trial.

    Args:
        space: its parameters are then the very values that were trained with: of a domain with a step, Optuna keeps
            0.35000000000000003 where the domain has 0.35.
    """
    finished = trial.state.is_finished()
    outcome: dict[str, Any] = trial.user_attrs.get(OUTCOME, {})
    lineage = trial.user_attrs.get(LINEAGE)
    score: float | None = None
    best_epoch: int | None = None
    for epoch, value in sorted(trial.intermediate_values.items()):
        if is_better(value, score, metric=metric):
            score, best_epoch = value, epoch
    return TrialRecord(
        number=trial.number,
        params=dict(trial.params) if space is None else _as_in(space, trial.params),
        status=Status(outcome.get("status", Status.FAILED)) if finished else Status.RUNNING,
        curve=dict(sorted(trial.intermediate_values.items())),
        score=score,
        best_epoch=outcome.get("best_epoch", best_epoch) if finished else best_epoch,
        val_loss=outcome.get("val_loss"),
        train_s=outcome.get("train_s", 0.0),
        images_per_s=outcome.get("images_per_s"),
        cause=outcome.get("cause") if finished else None,
        message=outcome.get("message") if finished else None,
        accounted=outcome.get("accounted", 0),
        lineage=Lineage(**lineage) if lineage else None,
    )


def _as_in(space: Space, params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with the values that their domains have for them."""
    domains, kept = space.domains, GivenDraw(params)
    return {name: domains[name].suggest(kept, name) if name in domains else value for name, value in params.items()}
