"""What is known about each trial? One record a trial, read from the study or kept while the search runs."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from trainables.metric_names import is_better

# Unusable, score (lower is better), validation loss, number.
RankKey = tuple[bool, float, float, int]


class Status(StrEnum):
    """Where a trial stands."""

    WAITING = "waiting"  # proposed ahead, for the next actor that is free
    RUNNING = "running"
    PAUSED = "paused"  # by the trial scheduler, which may have it continued later
    COMPLETED = "completed"
    STOPPED = "stopped"  # early, by the trial scheduler
    OUT_OF_BUDGET = "out of budget"  # was running when the search's budget ended
    FAILED = "failed"


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
        accounted: epochs whose times and losses are in the record. After a restart it may lack those of the last ones,
            which the study does not have; they come when the trial repeats its reports.
        lineage: for a trial that took over another's weights; its curve begins with the other's.
        cause: for a failed trial, the kind of failure; `message` says more.
    """

    number: int
    params: Mapping[str, Any]
    status: Status = Status.RUNNING
    curve: Mapping[int, float] = field(default_factory=dict)
    score: float | None = None
    best_epoch: int | None = None
    val_loss: float | None = None
    train_s: float = 0.0
    images_per_s: float | None = None
    cause: str | None = None
    message: str | None = None
    accounted: int = 0
    lineage: Lineage | None = None

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

    def with_epoch(self, metrics: Mapping[str, float], *, metric: str) -> TrialRecord:
        """The record after one more epoch; one that it has accounted for already leaves it as it is."""
        epoch = int(metrics["epoch"])
        if epoch <= self.accounted:
            return self
        best = int(metrics["best_epoch"]) == epoch
        seconds = metrics["train_s"] + metrics["val_s"] if epoch > self.inherited_epochs else 0.0
        after = replace(
            self,
            status=Status.RUNNING,
            val_loss=metrics["val_loss"] if best else self.val_loss,
            train_s=self.train_s + seconds,
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


class Ledger:
    """All records of a search; the searcher writes, the live view reads from its own thread."""

    def __init__(self, *, metric: str) -> None:
        self.metric = metric
        self._records: dict[int, TrialRecord] = {}
        self._lock = threading.Lock()

    def put(self, record: TrialRecord) -> None:
        with self._lock:
            self._records[record.number] = record

    def get(self, number: int) -> TrialRecord:
        return self._records[number]

    def drop(self, number: int) -> None:
        with self._lock:
            del self._records[number]

    def records(self) -> list[TrialRecord]:
        """All records, by trial number."""
        with self._lock:
            return sorted(self._records.values(), key=lambda record: record.number)

    def best(self) -> TrialRecord | None:
        """The leader among all that did not fail, running ones included."""
        ranked = rank(self.records(), metric=self.metric)
        return ranked[0] if ranked and ranked[0].score is not None else None


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


def best_until(record: TrialRecord, epoch: int, *, metric: str) -> float:
    """The best value of a curve up to an epoch; NaN where there is none."""
    best: float | None = None
    for reached, value in record.curve.items():
        if reached <= epoch and is_better(value, best, metric=metric):
            best = value
    return math.nan if best is None else best
