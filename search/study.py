"""How is a search kept? An Optuna study in an append-only journal, from which every record can be read again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.storages.journal._storage import JournalOperation
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.algorithm_config import SamplerConfig
from search.draws import GivenDraw
from search.journal import RunJournal, RunStorage
from search.knowledge import KnownTrial
from search.launch import OUT_OF_MEMORY
from search.ledger import Lineage, Status, TrialRecord
from search.restarts import Restarts
from search.sampler_views import distributions_of
from search.samplers import as_first_generation, build_sampler
from search.space import Space
from search.trial_attrs import BEGUN, EARLIER, LINEAGE, NOT_RUN, OBJECTIVES, OUTCOME, RESTARTS, STARTING_POINT
from trainables.errors import ConfigError, first_line
from trainables.metric_names import METRIC_MODES, is_better

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
        objectives: values of the study after the metric; what the network of a trial costs, lower is better.
        path: the journal; None keeps the study in memory only, for a simulation.

    Raises:
        ConfigError: if the journal cannot be read.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        name: str,
        metric: str,
        objectives: Sequence[str] = (),
        sampler: SamplerConfig,
        space: Space,
    ) -> None:
        self.metric = metric
        self._objectives = tuple(objectives)
        self._space = space
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        directions = [StudyDirection.MAXIMIZE if METRIC_MODES[metric] == "max" else StudyDirection.MINIMIZE]
        directions += [StudyDirection.MINIMIZE] * len(self._objectives)
        try:
            self._journal = None if path is None else RunJournal(path)
            self._storage: BaseStorage = InMemoryStorage() if self._journal is None else RunStorage(self._journal)
            # A run's folder may have been renamed or copied since its study got its name.
            known = [each.study_name for each in self._storage.get_all_studies()]
            self.study = optuna.create_study(
                storage=self._storage,
                study_name=known[0] if known else name,
                directions=directions,
                load_if_exists=True,
            )
            self.trials()
        except Exception as error:  # Optuna replays what it reads: of changed lines it may raise anything
            raise ConfigError(
                f"{path}: cannot be read as a study ({first_line(error)}); restore it from a copy, or start a new run"
            ) from error
        self._sampler = sampler
        self._build_sampler()

    def begin(self, points: Iterable[Mapping[str, Any]], space: Space, *, known: Sequence[KnownTrial] = ()) -> None:
        """Gives a new study what it starts from; nothing where it has that already.

        What is missing after a kill is added by the next call: all of it is marked, and a last mark says that it is
        complete. Trials of earlier runs are in the study for the sampler to learn from, and none of this run's.

        Args:
            points: tried first, in that order.
            known: trials of earlier runs.
        """
        trials = self.trials()
        if BEGUN in self.study.user_attrs or any(
            EARLIER not in trial.user_attrs and STARTING_POINT not in trial.user_attrs for trial in trials
        ):
            return
        there = {_origin(trial) for trial in trials}
        first = as_first_generation(self._sampler)
        for each in known:
            if (each.run, each.trial) not in there:
                self._add_known(each, space, system_attrs=first)
        begun = {trial.user_attrs.get(STARTING_POINT) for trial in trials}
        for index, point in enumerate(points):
            if index not in begun:
                enqueue_point(self.study, point, space, marks={STARTING_POINT: index})
        self.study.set_user_attr(BEGUN, True)
        self._build_sampler()

    def _build_sampler(self) -> None:
        # A sampler seeded alike would propose the same points again after a resume, so the seed counts the trials.
        trials = self.trials()
        self.study.sampler = build_sampler(
            self._sampler,
            trials_so_far=len(trials),
            space=self._space,
            several=bool(self._objectives),
            earlier=[trial for trial in trials if EARLIER in trial.user_attrs],
        )

    def _add_known(self, known: KnownTrial, space: Space, *, system_attrs: Mapping[str, Any]) -> None:
        """Adds a trial of an earlier run, as one line of the journal."""
        whole = distributions_of(space)
        outcome = {OUTCOME: {"train_s": known.train_s}} if known.train_s else {}
        costs = {OBJECTIVES: dict(known.objectives)} if self._objectives else {}
        trial = optuna.trial.create_trial(
            state=TrialState.COMPLETE if known.complete else TrialState.PRUNED,
            values=[known.score, *(known.objectives[name] for name in self._objectives)],
            params=dict(known.params),
            distributions={name: whole[name] for name in known.params},
            intermediate_values=dict(known.curve),
            user_attrs={
                EARLIER: {"run": known.run, "trial": known.trial, "again": known.again},
                **outcome,
                **costs,
            },
            system_attrs=dict(system_attrs),
        )
        self._storage.create_new_trial(self.study._study_id, template_trial=trial)

    def known_params(self) -> list[tuple[dict[str, Any], str, bool]]:
        """Of each trial of an earlier run its parameters, its name for a person, and whether it is to be run again."""
        found = []
        for trial in self.trials():
            if EARLIER in trial.user_attrs:
                origin = trial.user_attrs[EARLIER]
                params = dict(trial.params) if self._space is None else _as_in(self._space, trial.params)
                found.append((params, f"trial {origin['trial']} of {origin['run']}", bool(origin["again"])))
        return found

    def batch(self) -> AbstractContextManager[None]:
        """Has what is written inside reach the disk together when it is left: all of it, or nothing after a kill."""
        return nullcontext() if self._journal is None else self._journal.batch()

    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def records(self) -> list[TrialRecord]:
        """Every trial that was run or is to be resumed, by number."""
        return [record_of(trial, metric=self.metric, space=self._space) for trial in self.trials() if was_run(trial)]

    def arrivals(self) -> list[tuple[int, int]]:
        """Trial number and epoch of all intermediate values, in the order in which they came; none in memory."""
        logs = () if self._journal is None else list(self._journal.read_logs(0))
        told = (log for log in logs if log["op_code"] == JournalOperation.SET_TRIAL_INTERMEDIATE_VALUE)
        return [(self._storage.get_trial_number_from_id(log["trial_id"]), log["step"]) for log in told]

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

    def measured(self, number: int, objectives: Mapping[str, float]) -> None:
        """Keeps what the network of a trial costs, before it runs."""
        self._storage.set_trial_user_attr(self._trial_id(number), OBJECTIVES, dict(objectives))

    def add_epoch(self, number: int, *, epoch: int, value: float) -> None:
        """Adds an intermediate value to a running trial."""
        self._storage.set_trial_intermediate_value(self._trial_id(number), epoch, value)

    def restarted(self, record: TrialRecord) -> None:
        """Keeps how often a trial lost its worker."""
        self._storage.set_trial_user_attr(self._trial_id(record.number), RESTARTS, asdict(record.restarts))

    def note(self, record: TrialRecord) -> None:
        """Keeps what states and values cannot hold; of a trial that is paused or ends."""
        outcome: dict[str, Any] = {
            "status": record.status.value,
            "best_epoch": record.best_epoch,
            "val_loss": record.val_loss,
            "train_s": record.train_s,
            "read_s": record.read_s,
            "val_s": record.val_s,
            "images_per_s": record.images_per_s,
            "cause": record.cause,
            "message": record.message,
            "accounted": record.accounted,
        }
        self._storage.set_trial_user_attr(self._trial_id(record.number), OUTCOME, outcome)

    def finish(self, record: TrialRecord) -> None:
        """Closes a trial for good."""
        with self.batch():
            self.note(record)
            self._close(record)

    def _close(self, record: TrialRecord) -> None:
        state = _STATES[record.status]
        values = None
        if state is not TrialState.FAIL and record.score is not None:
            values = [record.score, *(record.objectives[name] for name in self._objectives)]
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


def enqueue_point(
    study: optuna.Study, point: Mapping[str, Any], space: Space, *, marks: Mapping[str, Any] | None = None
) -> None:
    """Has the searched parameters of a starting point proposed next; what it leaves out is sampled.

    A value of a parameter that does not exist beside what is sampled is passed over.
    """
    searched = {name: value for name, value in point.items() if name in space.searched}
    study.enqueue_trial(searched, user_attrs=None if marks is None else dict(marks))


def was_run(trial: FrozenTrial) -> bool:
    """Whether a trial of a study was run or is to be resumed; none that waits, was refused or is of an earlier run."""
    return trial.state is not TrialState.WAITING and not {NOT_RUN, EARLIER}.intersection(trial.user_attrs)


def _origin(trial: FrozenTrial) -> tuple[str, int] | None:
    """The earlier run and trial that a trial of a study stands for."""
    origin = trial.user_attrs.get(EARLIER)
    return None if origin is None else (origin["run"], origin["trial"])


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
        read_s=outcome.get("read_s", 0.0),
        val_s=outcome.get("val_s", 0.0),
        images_per_s=outcome.get("images_per_s"),
        cause=outcome.get("cause") if finished else None,
        message=outcome.get("message") if finished else None,
        accounted=outcome.get("accounted", 0),
        lineage=Lineage(**lineage) if lineage else None,
        objectives=dict(trial.user_attrs.get(OBJECTIVES, {})),
        restarts=Restarts(**trial.user_attrs.get(RESTARTS, {})),
    )


def _as_in(space: Space, params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with the values that their domains have for them."""
    domains, kept = space.domains, GivenDraw(params)
    return {name: domains[name].suggest(kept, name) if name in domains else value for name, value in params.items()}
