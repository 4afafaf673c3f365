"""Which trials go on? What all trial schedulers have in common: they hear every epoch, and read the study's records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.cluster_state import was_taken_back
from search.dominance import Losses
from search.interruptions import interruption_from_text, interruption_of
from search.launch import FAILURE
from search.ledger import Status, TrialRecord, best_until
from search.restarts import Interruption, Kind
from trainables.metric_names import is_better


class Decision(Enum):
    """What becomes of a trial after an epoch."""

    GO_ON = "go on"
    STOP = "stop"  # for good
    PAUSE = "pause"  # its actor is free for others; `next_step` may have it continued


@dataclass(frozen=True)
class Continue:
    """A paused trial trains further, from its checkpoint."""

    number: int


@dataclass(frozen=True)
class Exploit:
    """A paused trial ends; a new one in its place goes on from another's weights, with parameters of its own.

    Attributes:
        loser: number of the trial that ends.
        donor: number of the paused trial whose weights are taken over.
        epoch: epochs that both have trained.
        params: searched parameters of the new trial.
    """

    loser: int
    donor: int
    epoch: int
    params: Mapping[str, Any]


Step = Continue | Exploit


class FullScheduler(FIFOScheduler):  # type: ignore[misc]
    """Every trial trains to its end, unless its metric is NaN or infinite; the base of those that end some earlier.

    What a scheduler knows are the records of the study: `take_up` gives it those of earlier sessions, `add`, `judge`
    and `close` what happens in this one. Whatever it decides follows from them, so it decides the same after a restart.

    To Tune a pause is an end: the trial's actor is free at once, and the searcher proposes the same trial again when
    `next_step` says so. Tune's own PAUSE would keep a second truth about where a trial stands.

    Args:
        objectives: what trials are compared by besides the metric; their records have the values. Only successive
            halving is defined for any.

    Attributes:
        pauses: whether it may pause trials.
        stopped: numbers of the trials that were stopped early, so that the searcher can tell them from finished ones.
        paused: numbers of the trials that wait for their continuation.
        spared: numbers of the trials that rungs and the like do not end early; what they reach there counts for the
            others all the same. Set before `take_up` and the trial's first epoch. Not heeded by a population.
        errors: for trials whose process ended, by number, why; what is here already when Ray tells of it stays.
    """

    pauses = False

    def __init__(self, *, metric: str, objectives: Sequence[str] = ()) -> None:
        super().__init__()
        self._objectives = tuple(objectives)
        self._costs: dict[int, Losses] = {}
        self._ranked_by = metric  # Tune's own `metric` property stays unset: it would check every result for it
        self.stopped: set[int] = set()
        self.paused: set[int] = set()
        self.spared: set[int] = set()
        self.errors: dict[int, Interruption] = {}
        self._recorded: dict[int, int] = {}

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        del tune_controller
        number = int(trial.config["number"])
        if FAILURE in result or not usable(result, metric=self._ranked_by):
            # It cannot go on. The searcher records why; the actor is sound and can be reused.
            return str(TrialScheduler.STOP)
        value, score = float(result[self._ranked_by]), float(result["score"])
        decision = self.judge(number, epoch=int(result["epoch"]), value=value, score=score)
        return str(TrialScheduler.CONTINUE if decision is Decision.GO_ON else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        # Of actors that wait for a trial nobody hears that they are gone: those of one lost node, given one after the
        # other to the same trial, would fail it.
        tune_controller._cleanup_cached_actors(force_all=True)
        self.errors.setdefault(int(trial.config["number"]), _told_by_ray(trial))

    def choose_trial_to_run(self, tune_controller: TuneController) -> Trial | None:
        """The oldest trial that waits; Tune's own goes through all that ever were, at each step of its loop."""
        waiting = [trial for trial in tune_controller.get_live_trials() if trial.status == Trial.PENDING]
        return min(waiting, key=lambda trial: int(trial.config["number"]), default=None)

    def take_up(self, records: Iterable[TrialRecord]) -> None:
        """Learns what earlier sessions of the same run recorded; called once, before anything else."""
        for record in sorted(records, key=lambda each: each.number):
            self._recorded[record.number] = record.epochs
            self.add(record)
            self._replay(record)
            if record.status is not Status.RUNNING:
                self.close(record)

    def put_in_order(self, arrivals: Sequence[tuple[int, int]]) -> None:
        """Learns in which order trials, by number, reached their epochs in earlier sessions; called after `take_up`."""

    def add(self, record: TrialRecord) -> None:
        """Learns of a new trial, before its first epoch; trials are added in the order of their numbers."""
        if self._objectives:
            self._costs[record.number] = tuple(record.objectives[name] for name in self._objectives)

    def judge(self, number: int, *, epoch: int, value: float, score: float) -> Decision:
        """What becomes of a trial that has reported an epoch.

        An epoch that a resumed trial repeats was decided when it was first reported, unless it was the last.

        Args:
            value: the metric of this epoch.
            score: the best value up to it, which is what trials are finally ranked by.
        """
        if epoch < self._recorded.get(number, 0):
            return Decision.GO_ON
        decision = self._decide(number, epoch=epoch, value=value, score=score)
        if decision is Decision.STOP and number in self.spared:
            return Decision.GO_ON
        if decision is Decision.STOP:
            self.stopped.add(number)
        if decision is Decision.PAUSE:
            self.paused.add(number)
        return decision

    def restart(self, record: TrialRecord) -> None:
        """Learns that a trial lost its worker and will repeat the reports of its epochs; all have been decided."""
        self._recorded[record.number] = record.epochs + 1

    def close(self, record: TrialRecord) -> None:
        """Learns how a trial ended, whatever ended it."""
        self.paused.discard(record.number)

    def next_step(self, *, closing: bool) -> Step | None:
        """What to do with the paused trials now that there is room for one more; None where they have to wait.

        Args:
            closing: no new trial will come, and none is running.
        """
        del closing
        return None

    def _losses(self, number: int, score: float) -> Losses:
        """What a trial is compared by at a rung: its score there and its objectives, lower is better."""
        loss = score if is_loss(self._ranked_by) else -score
        return (loss if math.isfinite(loss) else math.inf, *self._costs.get(number, ()))

    def _curve_losses(self, record: TrialRecord) -> dict[int, Losses]:
        """The same at every epoch that a trial has reached."""
        number, metric = record.number, self._ranked_by
        return {epoch: self._losses(number, best_until(record, epoch, metric=metric)) for epoch in record.curve}

    def _decide(self, number: int, *, epoch: int, value: float, score: float) -> Decision:
        del number, epoch, value, score
        return Decision.GO_ON

    def _replay(self, record: TrialRecord) -> None:
        """Learns the curve that a trial had when an earlier session ended."""


def _told_by_ray(trial: Trial) -> Interruption:
    """What ended a trial's process."""
    # Tune keeps the errors of actors and tasks, in its scratch folder on this machine; of others it keeps the text.
    kept = Path(trial.pickled_error_file) if trial.pickled_error_file else None
    if kept is not None and kept.exists():
        error = cloudpickle.loads(kept.read_bytes())
        known = interruption_of(error)
        if known is not None and known.kind is Kind.LOST and was_taken_back(str(error)):
            return Interruption(Kind.PREEMPTED, known.message)
        if known is not None:
            return known
    error_file = Path(trial.error_file) if trial.error_file else None
    return interruption_from_text(error_file.read_text(errors="replace") if error_file and error_file.exists() else "")


def usable(result: Mapping[str, Any], *, metric: str) -> bool:
    """Whether a result holds a score that can be compared: NaN is not below any cutoff, and must not pass for good."""
    return math.isfinite(result[metric]) and math.isfinite(result["score"])


def is_loss(metric: str) -> bool:
    """Whether lower values of a metric are better."""
    return is_better(0.0, 1.0, metric=metric)
