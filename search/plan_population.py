"""How many trials reach each rung, and how many epochs is that? By the search's own scheduler, on random trials."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from itertools import islice

from search.config import SearchConfig
from search.ledger import Status, TrialRecord
from search.rungs import rung_epochs
from search.scheduler_choice import build_scheduler
from search.schedulers import Decision, FullScheduler, is_loss

_REPEATS = 20


@dataclass(frozen=True)
class Population:
    """What is expected of a number of trials.

    Attributes:
        reached: mean number of trials that reach each epoch at which trials are compared, and the last.
        epochs: mean number of epochs over all trials.
        longest: epochs from the first trial's start to the last one's end, each trial as fast as alone.
    """

    trials: int
    reached: dict[int, float]
    epochs: float
    longest: float


def expected_population(config: SearchConfig, *, trials: int, concurrent: int = 1) -> Population:
    """Trials of random quality, which early scores show as final ones do, some at a time and all equally fast.

    Promotion is counted by its rule: of n trials at a rung floor(n / reduction_factor) go on, at least one. All members
    of a population (pbt) train in full.
    """
    scheduler = config.scheduler
    rungs = rung_epochs(
        grace_period=scheduler.grace_period,
        reduction_factor=scheduler.reduction_factor,
        max_epochs=scheduler.max_epochs,
    )
    marks = [*rungs, scheduler.max_epochs]
    if scheduler.name == "asha_promotion":
        lengths = _promoted(trials, marks, reduction_factor=scheduler.reduction_factor)
    elif scheduler.name in ("none", "pbt"):
        lengths = [float(scheduler.max_epochs)] * trials
    else:
        runs = [_simulated(config, trials=trials, concurrent=concurrent, seed=seed) for seed in range(_REPEATS)]
        return Population(
            trials,
            reached={mark: sum(sum(each >= mark for each in run) for run, _ in runs) / _REPEATS for mark in marks},
            epochs=sum(sum(run) for run, _ in runs) / _REPEATS,
            longest=sum(longest for _, longest in runs) / _REPEATS,
        )
    return Population(
        trials,
        reached={mark: float(sum(each >= mark for each in lengths)) for mark in marks},
        epochs=sum(lengths),
        longest=max(max(lengths), sum(lengths) / concurrent),
    )


def _promoted(trials: int, marks: list[int], *, reduction_factor: int) -> list[float]:
    counts = [trials]
    for _ in marks[1:]:
        counts.append(max(1, counts[-1] // reduction_factor))
    lengths: list[float] = []
    for mark, here, further in zip(marks, counts, [*counts[1:], 0], strict=True):
        lengths += [float(mark)] * (here - further)
    return lengths


def _simulated(config: SearchConfig, *, trials: int, concurrent: int, seed: int) -> tuple[list[int], int]:
    """Epochs that each trial trains, and in how many all of them are done."""
    rng = random.Random(seed)
    scheduler = build_scheduler(config.scheduler, metric=config.metric, space=config.search_space, seed=seed)
    trainings = [_Training(number, rng.random(), config) for number in range(trials)]
    waiting, running, longest = iter(trainings), list[_Training](), 0
    while begun := [*running, *islice(waiting, concurrent - len(running))]:
        for training in begun[len(running) :]:
            scheduler.add(TrialRecord(number=training.number, params={}))
        running = [training for training in begun if training.goes_on(scheduler)]
        longest += 1
    return [len(training.curve) for training in trainings], longest


class _Training:
    """A trial of some quality in [0, 1)."""

    def __init__(self, number: int, quality: float, config: SearchConfig) -> None:
        self.number = number
        self.curve: dict[int, float] = {}
        self._most = config.scheduler.max_epochs
        self._quality = quality
        self._is_loss = is_loss(config.metric)

    def goes_on(self, scheduler: FullScheduler) -> bool:
        """Trains one more epoch."""
        epoch = len(self.curve) + 1
        reached = self._quality * (1 - 0.5 * math.exp(-3 * epoch / self._most))
        value = self.curve[epoch] = 1 - reached if self._is_loss else reached
        decision = scheduler.judge(self.number, epoch=epoch, value=value, score=value)
        if decision is Decision.GO_ON and epoch < self._most:
            return True
        status = Status.COMPLETED if epoch == self._most else Status.STOPPED
        scheduler.close(TrialRecord(number=self.number, params={}, status=status, curve=self.curve, score=value))
        return False
