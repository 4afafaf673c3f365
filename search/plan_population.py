"""How many trials reach each rung, and how many epochs is that? By the search's own scheduler, on random trials."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from search.config import SearchConfig
from search.ledger import Status, TrialRecord
from search.rungs import rung_epochs
from search.scheduler_choice import build_scheduler
from search.schedulers import Decision

_REPEATS = 20


@dataclass(frozen=True)
class Population:
    """What is expected of a number of trials.

    Attributes:
        reached: mean number of trials that reach each epoch at which trials are compared, and the last.
        epochs: mean number of epochs over all trials.
    """

    trials: int
    reached: dict[int, float]
    epochs: float


def expected_population(config: SearchConfig, *, trials: int) -> Population:
    """Trials of random quality, which early scores show as final ones do, one after the other.

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
        repeats = [_simulated(config, trials=trials, seed=seed) for seed in range(_REPEATS)]
        reached = {mark: sum(sum(each >= mark for each in run) for run in repeats) / _REPEATS for mark in marks}
        return Population(trials, reached, sum(sum(run) for run in repeats) / _REPEATS)
    return Population(trials, {mark: float(sum(each >= mark for each in lengths)) for mark in marks}, sum(lengths))


def _promoted(trials: int, marks: list[int], *, reduction_factor: int) -> list[float]:
    counts = [trials]
    for _ in marks[1:]:
        counts.append(max(1, counts[-1] // reduction_factor))
    lengths: list[float] = []
    for mark, here, further in zip(marks, counts, [*counts[1:], 0], strict=True):
        lengths += [float(mark)] * (here - further)
    return lengths


def _simulated(config: SearchConfig, *, trials: int, seed: int) -> list[int]:
    """Epochs that each trial trains."""
    rng = random.Random(seed)
    metric, most = config.metric, config.scheduler.max_epochs
    scheduler = build_scheduler(config.scheduler, metric=metric, space=config.search_space, seed=seed)
    sign = 1.0 if metric not in ("val_loss", "val_ece") else -1.0
    lengths = []
    for number in range(trials):
        quality = rng.random()
        scheduler.add(TrialRecord(number=number, params={}))
        curve: dict[int, float] = {}
        for epoch in range(1, most + 1):
            value = sign * quality * (1 - 0.5 * math.exp(-3 * epoch / most))
            curve[epoch] = value
            if scheduler.judge(number, epoch=epoch, value=value, score=value) is not Decision.GO_ON:
                break
        status = Status.COMPLETED if len(curve) == most else Status.STOPPED
        scheduler.close(TrialRecord(number=number, params={}, status=status, curve=curve, score=curve[len(curve)]))
        lengths.append(len(curve))
    return lengths
