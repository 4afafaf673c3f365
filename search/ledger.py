"""What is known about each trial? One record a trial, read from the study or kept while the search runs."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from search.dominance import front_of
from search.restarts import Restarts
from trainables.metric_names import is_better

# Unusable, score (lower is better), validation loss, number.
RankKey = tuple[bool, float, float, int]


class Status(StrEnum):
    """Where a trial stands."""

    WAITING = "waiting"  # for the next actor that is free: proposed ahead, or begun and interrupted
    RUNNING = "running"
    PAUSED = "paused"  # by the trial scheduler, which may have it continued later
    COMPLETED = "completed"
    STOPPED = "stopped"  # early, by the trial scheduler
    OUT_OF_BUDGET = "out of budget"  # was running when the search's budget ended
    FAILED = "failed"


UNFINISHED = (Status.RUNNING, Status.WAITING, Status.PAUSED)


@dataclass(frozen=True)
class Lineage:
    """Where a trial comes from that took over another's weights (population based training).

    Attributes:
        parent: number of the trial whose weights and curve it began with.
        replaces: number of the trial in whose place it is.
        epoch: epochs that the parent had trained by then.
    """

    parent: int
    replaces: int
    epoch: int


@dataclass(frozen=True)
class TrialRecord:
    """A trial as the leaderboard shows it.

    Attributes:
        number: the trial's number in the study, from 0.
        params: searched parameters only.
        curve: the search metric after each epoch, keyed by epoch from 1.
        score: the best value of the curve; None before the first epoch.
        train_s: seconds spent in training and validation, without start-up and waiting.
        read_s: of these, reading and augmenting images.
        val_s: of these, in validation.
        accounted: epochs whose times and losses are in the record. After a restart it may lack those of the last ones,
            which the study does not have; they come when the trial repeats its reports.
        lineage: for a trial that took over another's weights; its curve begins with the other's.
        objectives: what its network costs, by name, where the search looks at that too; lower is better.
        cause: for a failed trial, the kind of failure; `message` says more.
        restarts: how often its worker was lost and it went on from its checkpoint.
    """

    number: int
    params: Mapping[str, Any]
    status: Status = Status.RUNNING
    curve: Mapping[int, float] = field(default_factory=dict)
    score: float | None = None
    best_epoch: int | None = None
    val_loss: float | None = None
    train_s: float = 0.0
    read_s: float = 0.0
    val_s: float = 0.0
    images_per_s: float | None = None
    cause: str | None = None
    message: str | None = None
    accounted: int = 0
    lineage: Lineage | None = None
    objectives: Mapping[str, float] = field(default_factory=dict)
    restarts: Restarts = field(default_factory=Restarts)

    @property
    def epochs(self) -> int:
        """The epoch it has reached."""
        return max(self.curve, default=0)

    @property
    def inherited_epochs(self) -> int:
        """Epochs of its curve that another trial trained."""
        return 0 if self.lineage is None else self.lineage.epoch

    @property
    def trained_epochs(self) -> int:
        """Epochs that it trained itself."""
        return max(0, self.epochs - self.inherited_epochs)

    @property
    def is_usable(self) -> bool:
        """Whether it has a score and did not fail."""
        return self.score is not None and self.status is not Status.FAILED

    def with_epoch(self, metrics: Mapping[str, float], *, metric: str) -> TrialRecord:
        """The record after one more epoch; one that it has accounted for already leaves it as it is."""
        epoch = int(metrics["epoch"])
        if epoch <= self.accounted:
            return self
        best = int(metrics["best_epoch"]) == epoch
        own = epoch > self.inherited_epochs
        train_s, val_s = (metrics["train_s"], metrics["val_s"]) if own else (0.0, 0.0)
        after = replace(
            self,
            status=Status.RUNNING,
            val_loss=metrics["val_loss"] if best else self.val_loss,
            train_s=self.train_s + (train_s + val_s),
            read_s=self.read_s + (metrics.get("read_s", 0.0) if own else 0.0),
            val_s=self.val_s + val_s,
            images_per_s=metrics["images_per_s"],
            accounted=epoch,
        )
        if epoch < self.epochs:  # repeated after a restart: its score is known to be at least that of later epochs
            return after
        return replace(
            after,
            curve={**self.curve, epoch: metrics[metric]},
            score=metrics["score"],
            best_epoch=int(metrics["best_epoch"]),
        )


@dataclass
class Totals:
    """What all records of a search come to.

    Attributes:
        counts: trials by status.
        epochs: that they have trained.
        heirs: trials that took the place of another.
        lost, preempted: how often one went on after a lost worker, and after a preemption.
    """

    counts: Counter[Status] = field(default_factory=Counter)
    epochs: int = 0
    heirs: int = 0
    lost: int = 0
    preempted: int = 0

    @property
    def finished(self) -> int:
        """Trials that have ended; one whose place another took has not, as long as that trains."""
        ended = sum(count for status, count in self.counts.items() if status not in UNFINISHED)
        return max(0, ended - self.heirs)

    def add(self, record: TrialRecord, *, sign: int = 1) -> None:
        """Counts a record in; with a sign of -1 out again."""
        self.counts[record.status] += sign
        self.epochs += sign * record.trained_epochs
        self.heirs += sign * (record.lineage is not None)
        self.lost += sign * record.restarts.lost
        self.preempted += sign * record.restarts.preempted


class Ledger:
    """All records of a search; the searcher writes, the live view reads from its own thread."""

    def __init__(self, *, metric: str) -> None:
        self.metric = metric
        self._records: dict[int, TrialRecord] = {}
        self._lock = threading.Lock()
        self._totals = Totals()
        self._best: TrialRecord | None = None

    def put(self, record: TrialRecord) -> None:
        with self._lock:
            before = self._records.get(record.number)
            self._records[record.number] = record
            self._count(before, record)
            self._compare(record)

    def get(self, number: int) -> TrialRecord:
        return self._records[number]

    def drop(self, number: int) -> None:
        with self._lock:
            self._count(self._records.pop(number), None)
            if self._best is not None and self._best.number == number:
                self._best = self._find_best()

    def records(self) -> list[TrialRecord]:
        """All records, by trial number."""
        with self._lock:
            return sorted(self._records.values(), key=lambda record: record.number)

    def best(self) -> TrialRecord | None:
        """The leader among all that did not fail, running ones included."""
        return self._best

    @property
    def totals(self) -> Totals:
        """What the records come to, without a look at each: the live view asks several times a second."""
        with self._lock:
            return replace(self._totals, counts=Counter(self._totals.counts))

    def _count(self, before: TrialRecord | None, after: TrialRecord | None) -> None:
        if before is not None:
            self._totals.add(before, sign=-1)
        if after is not None:
            self._totals.add(after)

    def _compare(self, record: TrialRecord) -> None:
        """Keeps the leader up to date; only where the leader itself fell back are all looked at."""
        if self._best is not None and self._best.number == record.number:
            behind = self._key(record) > self._key(self._best)
            self._best = self._find_best() if behind else record
        elif record.is_usable and (self._best is None or self._key(record) < self._key(self._best)):
            self._best = record

    def _find_best(self) -> TrialRecord | None:
        return min((each for each in self._records.values() if each.is_usable), key=self._key, default=None)

    def _key(self, record: TrialRecord) -> RankKey:
        return rank_key(record, metric=self.metric)


def rank(records: list[TrialRecord], *, metric: str) -> list[TrialRecord]:
    """Records from best to worst; failed ones and those without a score come last.

    A tie in the metric goes to the lower validation loss, then to the earlier trial.
    """
    return sorted(records, key=lambda record: rank_key(record, metric=metric))


def rank_key(record: TrialRecord, *, metric: str) -> RankKey:
    """What records are sorted by, from best to worst."""
    sign = -1.0 if is_better(1.0, 0.0, metric=metric) else 1.0
    unusable = record.score is None or record.status is Status.FAILED
    score = 0.0 if record.score is None else sign * record.score
    return unusable, score, float("inf") if record.val_loss is None else record.val_loss, record.number


def pareto_front(records: Iterable[TrialRecord], *, metric: str, objectives: Sequence[str]) -> list[int]:
    """The trials that no other beats in the metric and all objectives together, by number.

    Stopped trials count with the best score that they reached; failed ones and those without a score do not.
    """
    sign = -1.0 if is_better(1.0, 0.0, metric=metric) else 1.0
    return front_of(
        {
            record.number: (sign * record.score, *(record.objectives[name] for name in objectives))
            for record in records
            if record.score is not None and record.status is not Status.FAILED
        }
    )


def best_until(record: TrialRecord, epoch: int, *, metric: str) -> float:
    """The best value of a curve up to an epoch; NaN where there is none."""
    best: float | None = None
    for reached, value in record.curve.items():
        if reached <= epoch and is_better(value, best, metric=metric):
            best = value
    return math.nan if best is None else best
