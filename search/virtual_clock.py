"""Which simulated trial reports next, and when? Devices that train nothing, on a clock that does not wait."""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from search.simulated_curves import Curve, CurveSource


@dataclass(frozen=True)
class Job:
    """A trial that a device begins, or goes on with.

    Attributes:
        key: the same for all parts of one trial.
        params: all of its parameters, for its curve.
    """

    key: Hashable
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Report:
    """What a trial says after an epoch.

    Attributes:
        epoch: from 1.
        value: the search metric; higher is better.
        score: its best value so far, reached in `best_epoch`.
        seconds: what the epoch took.
        last: whether the trial ends with it of its own accord.
    """

    epoch: int
    value: float
    score: float
    best_epoch: int
    loss: float
    seconds: float
    last: bool

    @property
    def diverged(self) -> bool:
        """Whether the training cannot go on."""
        return not math.isfinite(self.value)


class Driver(Protocol):
    """A search method: proposes trials and decides which go on."""

    def next_job(self) -> Job | None:
        """What a free device does now; None when there is nothing until another trial reports."""
        ...

    def report(self, key: Hashable, report: Report) -> bool:
        """Takes a report, and says whether the trial goes on; one that ends with it does not."""
        ...

    @property
    def over(self) -> bool:
        """Whether the search has ended, running trials included."""
        ...


@dataclass(frozen=True)
class Event:
    """An epoch that was trained: when it ended on the virtual clock in seconds, of which trial, and its metric."""

    time_s: float
    key: Hashable
    epoch: int
    value: float


@dataclass
class Trace:
    """What a simulated search trained.

    Attributes:
        curves: the whole curve of every trial that was begun, also where the search did not see its end.
        events: all epochs that were trained, in the order in which they ended.
        incumbents: those of them with a higher value than all before.
    """

    curves: dict[Hashable, Curve] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    incumbents: list[Event] = field(default_factory=list)

    def add(self, event: Event) -> None:
        self.events.append(event)
        if event.value > (self.incumbents[-1].value if self.incumbents else -math.inf):
            self.incumbents.append(event)

    @property
    def best(self) -> float:
        """The highest value of all; minus infinity where there is none."""
        return self.incumbents[-1].value if self.incumbents else -math.inf

    def incumbent_at(self, time_s: float) -> Event | None:
        """The epoch with the highest value by then, the earliest of equals; None before the first."""
        return next((event for event in reversed(self.incumbents) if event.time_s <= time_s), None)

    def time_to(self, value: float) -> float:
        """Seconds until some trial had at least this value; infinite if none had."""
        return next((event.time_s for event in self.incumbents if event.value >= value), math.inf)


def replay(
    driver: Driver,
    curves: CurveSource,
    *,
    devices: int,
    until_s: float = math.inf,
    target: float = math.inf,
) -> Trace:
    """Runs a search on devices whose trainings are looked up, until it is over.

    A trial that is continued first repeats the reports of the epochs it has, which takes no time, as real ones do.

    Args:
        devices: trials at a time.
        until_s: the search is cut off then, in seconds on the virtual clock.
        target: the search is cut off once a trial has this value.
    """
    trace, now_s, count = Trace(), 0.0, 0
    trained: dict[Hashable, int] = {}
    queue: list[tuple[float, int, Hashable, int]] = []  # when, of equals which first, and which epoch then ends

    def schedule(key: Hashable, epoch: int) -> None:
        nonlocal count
        count += 1
        seconds = float(trace.curves[key].seconds[epoch - 1]) if epoch > trained[key] else 0.0
        heapq.heappush(queue, (now_s + seconds, count, key, epoch))

    while not driver.over:
        while len(queue) < devices and (job := driver.next_job()) is not None:
            if job.key not in trace.curves:
                trace.curves[job.key], trained[job.key] = curves.curve(job.params), 0
            schedule(job.key, 1)
        if not queue or queue[0][0] > until_s or trace.best >= target:
            break
        now_s, _, key, epoch = heapq.heappop(queue)
        report = report_of(trace.curves[key], epoch)
        if epoch > trained[key]:
            trained[key] = epoch
            if not report.diverged:
                trace.add(Event(now_s, key, epoch, report.value))
        if driver.report(key, report):
            schedule(key, epoch + 1)
    return trace


def report_of(curve: Curve, epoch: int) -> Report:
    """What a training with this curve says after an epoch; of equal values the earlier is the best."""
    values = curve.values[:epoch]
    best = int(max(range(epoch), key=lambda index: (values[index], -index)))
    return Report(
        epoch=epoch,
        value=float(values[-1]),
        score=float(values[best]),
        best_epoch=best + 1,
        loss=float(curve.losses[epoch - 1]),
        seconds=float(curve.seconds[epoch - 1]),
        last=epoch == curve.epochs or not math.isfinite(values[-1]),
    )
