"""What does Optuna learn from each trial? A thin searcher between Ray Tune and the study."""

from __future__ import annotations

import itertools
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from search.launch import CAUSE, FAILURE
from search.ledger import Ledger, Status, TrialRecord
from search.schedulers import FullScheduler, usable
from search.space import Space
from search.study import StudyStore

# As many trials, the first of the search, must fail alike before the rest is spared.
FAILURES_BEFORE_GIVING_UP = 3


class Halt:
    """Why a search ends before its trials are used up; asked by Tune's loop, set by whoever knows."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.reason: str | None = None
        self.interrupted = False
        self.hopeless = False

    def because(self, reason: str, *, interrupted: bool = False, hopeless: bool = False) -> None:
        """Asks for the end; the first reason stays.

        Args:
            interrupted: a person asked; running trials are kept for a resume.
            hopeless: every trial fails, so the search has failed.
        """
        if not self._event.is_set():
            self.reason, self.interrupted, self.hopeless = reason, interrupted, hopeless
            self._event.set()

    @property
    def requested(self) -> bool:
        return self._event.is_set()


class OptunaSearcher(Searcher):  # type: ignore[misc]
    """Proposes trials from an Optuna study and writes back how each ended.

    Ray's own OptunaSearch tells Optuna that a stopped trial is complete and leaves one with NaN running. Here a trial
    that the scheduler stops is PRUNED with its curve, a failure is FAIL with its cause, and trials that an earlier
    session left running are proposed first, under their old numbers.

    Args:
        on_finish: called with a trial's number once its end is on record.
        max_trials: trials to run in all, over all sessions; None sets no limit.
        max_epochs: epochs to train in all; None sets no limit.
        max_concurrent: trials to run at a time.
        ahead: trials to propose beyond those that run.
    """

    def __init__(
        self,
        store: StudyStore,
        space: Space,
        ledger: Ledger,
        *,
        scheduler: FullScheduler,
        halt: Halt,
        on_finish: Callable[[int], None],
        max_trials: int | None,
        max_epochs: int | None,
        max_concurrent: int,
        ahead: int = 0,
        seed: int,
    ) -> None:
        super().__init__()
        self._store = store
        self._space = space
        self._ledger = ledger
        self._scheduler = scheduler
        self._halt = halt
        self._on_finish = on_finish
        self._max_trials = max_trials
        self._max_epochs = max_epochs
        self._max_concurrent = max_concurrent
        self._max_live = max_concurrent + ahead
        self._seed = seed
        self._live: dict[str, int] = {}
        self._interrupted: deque[int] = deque()
        self._seen: dict[tuple[Any, ...], int] = {}
        self._num_trials = 0
        self._num_epochs = 0
        self._first_causes: list[str | None] = []
        self._take_up_earlier_trials()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._halt.requested:
            return str(Searcher.FINISHED)
        if len(self._live) >= self._max_live:
            return None
        if self._interrupted:
            record = self._ledger.get(self._interrupted.popleft())
        elif self._max_trials is not None and self._num_trials >= self._max_trials:
            return str(Searcher.FINISHED)
        else:
            proposed = self._propose()
            if proposed is None:
                return str(Searcher.FINISHED)
            record = proposed
            self._num_trials += 1
        waits = len(self._live) >= self._max_concurrent
        self._live[trial_id] = record.number
        self._ledger.put(replace(record, status=Status.WAITING if waits else Status.RUNNING))
        return {"number": record.number, "params": dict(record.params)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._add_epoch(self._live[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        number = self._live.pop(trial_id)
        self._start_next()
        if error:
            self._fail(number, cause="worker died", message=_last_line(self._scheduler.errors.get(number, "")))
            return
        if result is None or (FAILURE not in result and "epoch" not in result):
            self._fail(number, cause="no result", message="the trial ended without reporting an epoch")
            return
        if FAILURE in result:
            self._fail(number, cause=str(result[CAUSE]), message=str(result[FAILURE]))
            return
        if not usable(result, metric=self._ledger.metric):
            self._fail(number, cause="DivergedError", message=f"{self._ledger.metric} became NaN or infinite")
            return
        self._add_epoch(number, result)  # Tune skips on_trial_result for the epoch at which a trial is stopped
        status = Status.STOPPED if number in self._scheduler.stopped else Status.COMPLETED
        self._finish(replace(self._ledger.get(number), status=status))

    def end_running_trials(self) -> None:
        """Closes what the end of the budget cut off, with the curve it had; what had not begun is taken back."""
        for record in self._ledger.records():
            if record.status is Status.RUNNING or (record.status is Status.WAITING and record.curve):
                self._finish(replace(record, status=Status.OUT_OF_BUDGET))
            elif record.status is Status.WAITING:
                self._store.discard(record.number, reason="the budget ended before it began")
                self._ledger.drop(record.number)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study on disk is always up to date."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a resume reads the study."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher with the Tuner; ours is never read back

    def _start_next(self) -> None:
        """The trial that was proposed ahead takes the actor that has become free."""
        for number in self._live.values():
            record = self._ledger.get(number)
            if record.status is Status.WAITING:
                self._ledger.put(replace(record, status=Status.RUNNING))
                return

    def _take_up_earlier_trials(self) -> None:
        searched = set(self._space.searched)
        for trial in self._store.trials():
            if trial.state is TrialState.RUNNING and set(trial.params) != searched:
                self._propose_again(trial)
        for record in self._store.records():
            self._ledger.put(record)
            self._seen[self._key(record.params)] = record.number
            self._num_trials += 1
            self._num_epochs += record.epochs
            if record.status is Status.RUNNING:
                self._interrupted.append(record.number)
            else:
                self._first_causes.append(record.cause)

    def _propose_again(self, trial: FrozenTrial) -> None:
        """A driver killed while a trial was being proposed leaves it half made; a recipe among them is not lost."""
        recipe = trial.system_attrs.get("fixed_params")
        self._store.discard(trial.number, reason="interrupted while it was proposed")
        if recipe:
            self._store.study.enqueue_trial(recipe)

    def _propose(self) -> TrialRecord | None:
        """A new trial whose parameters no other had; None when a finite space has no more."""
        if self._space.num_combinations is not None and len(self._seen) >= self._space.num_combinations:
            return None
        number, params = self._ask()
        while self._key(params) in self._seen:
            self._store.discard(number, reason=f"same parameters as trial {self._seen[self._key(params)]}")
            if self._space.num_combinations is not None:
                self._store.study.enqueue_trial(self._unseen_combination())
            number, params = self._ask()
        self._seen[self._key(params)] = number
        return TrialRecord(number=number, params=params)

    def _ask(self) -> tuple[int, dict[str, Any]]:
        trial: optuna.Trial = self._store.study.ask()
        params = self._space.suggest(trial)
        return trial.number, {name: params[name] for name in self._space.searched if name in params}

    def _unseen_combination(self) -> dict[str, Any]:
        """A combination of a finite space that was not run yet, drawn by seed."""
        unseen = (params for params in self._space.combinations() if self._key(params) not in self._seen)
        candidates = list(itertools.islice(unseen, 10_000))
        rng = np.random.default_rng([self._seed, len(self._seen)])
        chosen = candidates[int(rng.integers(len(candidates)))]
        return {name: chosen[name] for name in self._space.searched}

    def _key(self, params: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple((name, params[name]) for name in self._space.searched if name in params)

    def _add_epoch(self, number: int, result: Mapping[str, Any]) -> None:
        before = self._ledger.get(number)
        after = before.with_epoch(result, metric=self._ledger.metric)
        if after is before:
            return
        self._ledger.put(after)
        self._store.add_epoch(number, epoch=after.epochs, value=after.curve[after.epochs])
        self._num_epochs += 1
        if self._max_epochs is not None and self._num_epochs >= self._max_epochs:
            self._halt.because(f"the budget of {self._max_epochs} epochs is used up")

    def _fail(self, number: int, *, cause: str, message: str) -> None:
        self._finish(replace(self._ledger.get(number), status=Status.FAILED, cause=cause, message=message))

    def _finish(self, record: TrialRecord) -> None:
        self._ledger.put(record)
        self._store.finish(record)
        self._on_finish(record.number)
        self._first_causes.append(record.cause)
        first = self._first_causes[:FAILURES_BEFORE_GIVING_UP]
        if len(first) == FAILURES_BEFORE_GIVING_UP and None not in first and len(set(first)) == 1:
            reason = f"the first {len(first)} trials all failed alike: {record.cause}: {record.message}"
            self._halt.because(reason, hopeless=True)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() if line.strip()]
    return lines[-1][:500] if lines else "its process ended without a message"
