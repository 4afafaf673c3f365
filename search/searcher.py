"""What does Optuna learn from each trial? A thin searcher between Ray Tune and the study."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from ray.tune.search import Searcher

from search.halt import STORAGE_FAILS, Halt
from search.launch import CAUSE, FAILURE, INTERRUPTION
from search.ledger import Ledger, Lineage, Status, TrialRecord
from search.proposals import Measure, Proposals, nothing_measured
from search.restarts import Interruption, Kind
from search.room import Fit, Room
from search.schedulers import Exploit, FullScheduler, Step, usable
from search.space import Space
from search.spending import Spending
from search.study import StudyStore
from trainables.storage_errors import storage_error

# As many trials, the first of the search, must fail alike before the rest is spared.
FAILURES_BEFORE_GIVING_UP = 3

_log = logging.getLogger(__name__)


class OptunaSearcher(Searcher):  # type: ignore[misc]
    """Proposes trials from an Optuna study and writes back how each ended.

    Ray's own OptunaSearch tells Optuna that a stopped trial is complete and leaves one with NaN running. Here a trial
    that the scheduler stops is PRUNED with its curve, a failure is FAIL with its cause, and trials that an earlier
    session left running are proposed first, under their old numbers.

    A trial that the scheduler pauses stays RUNNING in the study; to Tune it has ended. When the scheduler has it
    continued, it is proposed again under its number, just like one that was interrupted. So is one that has lost its
    worker, up to a number of times.

    Args:
        spending: what the trials use of the budget; it learns of earlier sessions here.
        on_finish: called with a trial's record once its end is in the study.
        on_take_up: called with the records of earlier sessions, before any other.
        inherit: called with the record of a trial that goes on from another's weights, before it begins; gives it
            the checkpoint, unless it has one.
        measure: what the network of a trial costs, by name; asked for when there are limits or objectives.
        limits: the most of it that a trial may cost; one that costs more is not run.
        objectives: what of it the search makes small.
        max_trials: trials to run in all, over all sessions; None sets no limit.
        room: which trials may run at a time.
        workers_of: the number of workers of a trial with these parameters.
        retries: how often in a row a trial goes on after the loss of its worker without finishing an epoch.
    """

    def __init__(
        self,
        store: StudyStore,
        space: Space,
        ledger: Ledger,
        *,
        scheduler: FullScheduler,
        halt: Halt,
        spending: Spending,
        on_finish: Callable[[TrialRecord], None],
        on_take_up: Callable[[Sequence[TrialRecord]], None] = lambda _: None,
        inherit: Callable[[TrialRecord], None] = lambda _: None,
        measure: Measure = nothing_measured,
        limits: Mapping[str, float] = MappingProxyType({}),
        objectives: Sequence[str] = (),
        max_trials: int | None,
        room: Room,
        workers_of: Callable[[Mapping[str, Any]], int] = lambda _: 1,
        retries: int = 0,
        seed: int,
    ) -> None:
        super().__init__()
        self._store = store
        self._space = space
        self._proposals = Proposals(store, space, seed=seed, measure=measure, limits=limits, objectives=objectives)
        self._ledger = ledger
        self._scheduler = scheduler
        self._halt = halt
        self._spending = spending
        self._on_finish = on_finish
        self._inherit = inherit
        self._max_trials = max_trials
        self._room = room
        self._workers_of = workers_of
        self._retries = retries
        self._live: dict[str, int] = {}
        self._workers: dict[int, int] = {}
        self._interrupted: deque[int] = deque()
        self._num_trials = 0
        self._first_causes: list[str | None] = []
        self._take_up_earlier_trials(on_take_up)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        with self._halting_where_storage_fails():
            return self._suggest(trial_id)
        return str(Searcher.FINISHED)

    def _suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._halt.requested:
            return str(Searcher.FINISHED)
        running = [self._workers[number] for number in self._live.values()]
        if self._room.fit(running) is Fit.NO:
            return None
        record = self._next()
        if record is None:
            # Those that run may bring a paused one further, or lose their worker and have to go on.
            return None if self._live else str(Searcher.FINISHED)
        size = self._workers[record.number] = self._workers_of(record.params)
        fit = self._room.fit(running, size=size)
        if fit is Fit.NO:  # a smaller one would fit, but then one as large would never have its turn
            self._ledger.put(replace(record, status=Status.WAITING))
            self._interrupted.appendleft(record.number)
            return None
        self._live[trial_id] = record.number
        self._ledger.put(replace(record, status=Status.WAITING if fit is Fit.AHEAD else Status.RUNNING))
        return {"number": record.number, "params": dict(record.params)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        with self._halting_where_storage_fails():
            self._add_epoch(self._live[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        with self._halting_where_storage_fails():
            self._end(self._live.pop(trial_id), result, error=error)

    @contextmanager
    def _halting_where_storage_fails(self) -> Iterator[None]:
        """The trials are none the worse for it: in the study they run, and a resume takes them up."""
        try:
            yield
        except OSError as error:
            if storage_error(error) is None:
                raise
            self._halt.because(f"{STORAGE_FAILS}: {error.strerror}", interrupted=True)

    def _end(self, number: int, result: dict[str, Any] | None, *, error: bool) -> None:
        self._start_next()
        if error:
            nothing = Interruption(Kind.BROKEN, "its process ended without a message")
            self._interrupt(number, self._scheduler.errors.pop(number, nothing))
            return
        if result is not None and INTERRUPTION in result:
            self._interrupt(number, Interruption(Kind(result[INTERRUPTION]), str(result[FAILURE])))
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
        with self._store.batch():
            self._add_epoch(number, result)  # Tune skips on_trial_result for the epoch at which a trial is stopped
            ended = self._pause_or_end(number)
        if ended is not None:
            self._after_end(ended)

    def end_running_trials(self, saved: Callable[[TrialRecord], Iterable[Mapping[str, float]]] = lambda _: ()) -> None:
        """Closes what the end of the search cut off, with the curve it had; what had not begun is taken back.

        A trial that was paused, and is not continued any more, was stopped by the scheduler.

        Args:
            saved: what a trial has saved of its epochs, of which it may not have reported the last.
        """
        for record in self._ledger.records():
            if record.status is Status.PAUSED:
                self._finish(replace(record, status=Status.STOPPED))
            elif record.status in (Status.RUNNING, Status.WAITING):
                self._cut_off(record, saved(record))

    def _cut_off(self, record: TrialRecord, saved: Iterable[Mapping[str, float]]) -> None:
        for metrics in saved:
            self._add_epoch(record.number, metrics)
        known = self._ledger.get(record.number)
        if record.status is Status.RUNNING or known.curve:
            self._finish(replace(known, status=Status.OUT_OF_BUDGET))
        else:
            self._proposals.withdraw(record.number, reason="the budget ended before it began")
            self._ledger.drop(record.number)

    def keep_paused_trials(self) -> None:
        """Shows paused trials as the study has them: to be taken up by a resume."""
        for record in self._ledger.records():
            if record.status is Status.PAUSED:
                self._ledger.put(replace(record, status=Status.RUNNING))

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

    def _take_up_earlier_trials(self, on_take_up: Callable[[Sequence[TrialRecord]], None]) -> None:
        self._proposals.withdraw_half_made()
        self._proposals.know_earlier()
        records = self._store.records()
        on_take_up(records)
        for record in records:
            self._spare_known(record)
        self._scheduler.take_up(records)
        self._scheduler.put_in_order(self._store.arrivals())
        replaced = {record.lineage.replaces for record in records if record.lineage is not None}
        for record in records:
            self._ledger.put(record)
            workers = self._workers[record.number] = self._workers_of(record.params)
            self._spending.add(epochs=record.trained_epochs, train_s=record.train_s, workers=workers)
            if record.lineage is None:
                self._proposals.know(record)
                self._num_trials += 1
            if record.status is not Status.RUNNING:
                self._first_causes.append(record.cause)
            elif record.number in replaced:  # the driver was killed before it could say so
                self._finish(replace(record, status=Status.STOPPED))
            elif record.number in self._scheduler.paused:
                self._ledger.put(replace(record, status=Status.PAUSED))
            else:
                self._inherit(record)
                self._interrupted.append(record.number)
        if self._failed_alike():  # a person who goes on has seen to it
            self._first_causes.clear()
        if self._spending.exhausted is not None:
            self._halt.because(self._spending.exhausted)

    def _next(self) -> TrialRecord | None:
        """The trial to run now: interrupted ones first, then paused ones that may go on, then new ones."""
        if self._interrupted:
            return self._ledger.get(self._interrupted.popleft())
        step = self._scheduler.next_step(closing=False)
        if step is None and (self._max_trials is None or self._num_trials < self._max_trials):
            proposed = self._proposals.next()
            if proposed is not None:
                self._num_trials += 1
                self._spare_known(proposed)
                self._scheduler.add(proposed)
                return proposed
        if step is None and not self._live:
            step = self._scheduler.next_step(closing=True)
        return None if step is None else self._take(step)

    def _spare_known(self, record: TrialRecord) -> None:
        # What it comes to is known: ended early for a slow start it could not win, although nothing was better.
        if record.lineage is None and self._proposals.is_known(record.params):
            self._scheduler.spared.add(record.number)

    def _take(self, step: Step) -> TrialRecord:
        if not isinstance(step, Exploit):
            return self._ledger.get(step.number)
        # The new trial is on record before the old one ends, and has its weights before anything else happens: a
        # driver killed in between finds in the study what is left to do.
        lineage = Lineage(parent=step.donor, replaces=step.loser, epoch=step.epoch)
        number = self._store.add_heir(step.params, lineage, space=self._space)
        heir = TrialRecord(number=number, params=dict(step.params), lineage=lineage)
        self._ledger.put(heir)
        self._scheduler.add(heir)
        self._inherit(heir)
        self._finish(replace(self._ledger.get(step.loser), status=Status.STOPPED))
        return heir

    def _add_epoch(self, number: int, result: Mapping[str, Any]) -> None:
        before = self._ledger.get(number)
        after = before.with_epoch(result, metric=self._ledger.metric)
        if after is before:
            return
        self._ledger.put(after)
        new_epochs = after.trained_epochs - before.trained_epochs
        added_s = after.train_s - before.train_s
        self._spending.add(epochs=new_epochs, train_s=added_s, workers=self._workers[number])
        if after.epochs == before.epochs:  # after a restart, what the study did not have of it
            return
        self._store.add_epoch(number, epoch=after.epochs, value=after.curve[after.epochs])
        if self._spending.exhausted is not None:
            self._halt.because(self._spending.exhausted)

    def _interrupt(self, number: int, found: Interruption) -> None:
        """Has a trial whose process ended go on from its checkpoint, or fail if that has been tried enough."""
        record = self._ledger.get(number)
        if found.kind is Kind.STORAGE:  # it would fail of it again, and so would all others
            self._halt.because(found.message, interrupted=True)
            return
        restarts = record.restarts.after(found.kind, epoch=record.epochs)
        if not found.may_go_on or restarts.in_a_row > self._retries:
            self._fail(number, cause=found.kind.value, message=found.message)
            return
        record = replace(record, status=Status.WAITING, restarts=restarts)
        self._ledger.put(record)
        self._store.restarted(record)
        self._scheduler.restart(record)
        self._interrupted.appendleft(number)
        _log.warning("trial %d, epoch %d: %s, goes on: %s", number, record.epochs, found.kind.value, found.message)

    def _pause_or_end(self, number: int) -> TrialRecord | None:
        """Writes how a sound trial stands after its last report; its record where it has ended."""
        record = self._ledger.get(number)
        if number in self._scheduler.paused:
            paused = replace(record, status=Status.PAUSED)
            self._ledger.put(paused)
            self._store.note(paused)
            return None
        status = Status.STOPPED if number in self._scheduler.stopped else Status.COMPLETED
        return self._write_end(replace(record, status=status))

    def _fail(self, number: int, *, cause: str, message: str) -> None:
        self._finish(replace(self._ledger.get(number), status=Status.FAILED, cause=cause, message=message))

    def _finish(self, record: TrialRecord) -> None:
        self._after_end(self._write_end(record))

    def _write_end(self, record: TrialRecord) -> TrialRecord:
        self._ledger.put(record)
        self._store.finish(record)
        return record

    def _after_end(self, record: TrialRecord) -> None:
        """What follows once the end of a trial is in the study: only then may its checkpoints go."""
        self._scheduler.close(record)
        self._on_finish(record)
        self._first_causes.append(record.cause)
        if self._failed_alike():
            reason = f"the first {FAILURES_BEFORE_GIVING_UP} trials all failed alike: {record.cause}: {record.message}"
            self._halt.because(reason, hopeless=True)

    def _failed_alike(self) -> bool:
        first = self._first_causes[:FAILURES_BEFORE_GIVING_UP]
        return len(first) == FAILURES_BEFORE_GIVING_UP and None not in first and len(set(first)) == 1
