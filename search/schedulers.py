"""Which trials go on? Asynchronous successive halving, with rungs that survive a restart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.config import SchedulerConfig
from search.launch import FAILURE
from search.ledger import TrialRecord
from trainables.config import is_better


def rung_epochs(*, grace_period: int, reduction_factor: int, max_epochs: int) -> list[int]:
    """Epochs at which trials are compared: grace_period times powers of the reduction factor, below max_epochs.

    Counted in integers: flooring a ratio of logarithms loses rungs (log(243) / log(3) is 4.999...).

    >>> rung_epochs(grace_period=1, reduction_factor=3, max_epochs=243)
    [1, 3, 9, 27, 81]
    """
    rungs, epoch = [], grace_period
    while epoch < max_epochs:
        rungs.append(epoch)
        epoch *= reduction_factor
    return rungs


class Rung:
    """The scores that trials had when they reached one epoch."""

    def __init__(self, epoch: int, *, metric: str, reduction_factor: int) -> None:
        self.epoch = epoch
        self.scores: dict[int, float] = {}
        self._metric = metric
        self._reduction_factor = reduction_factor

    def admits(self, number: int, score: float) -> bool:
        """Records a trial's score and says whether it is among the best 1 / reduction_factor so far.

        The first to arrive is. Of equal scores the earlier keeps its place: on small validation splits many trials
        tie, and letting all of them go on would spend the budget on what cannot be told apart.
        """
        self.scores.pop(number, None)
        ahead = sum(not is_better(score, other, metric=self._metric) for other in self.scores.values())
        self.scores[number] = score
        return ahead < math.ceil(len(self.scores) / self._reduction_factor)


class FullScheduler(FIFOScheduler):  # type: ignore[misc]
    """Every trial trains to its end, unless its metric is NaN or infinite; the base of those that stop some.

    Attributes:
        stopped: numbers of the trials that were stopped early, so that the searcher can tell them from finished ones.
        errors: for trials whose worker died, by number, what Ray said of it.
    """

    def __init__(self, *, metric: str) -> None:
        super().__init__()
        self._ranked_by = metric  # Tune's own `metric` property stays unset: it would check every result for it
        self.stopped: set[int] = set()
        self.errors: dict[int, str] = {}

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        del tune_controller
        number = int(trial.config["number"])
        if FAILURE in result or not usable(result, metric=self._ranked_by):
            # It cannot go on. The searcher records why; the actor is sound and can be reused.
            return str(TrialScheduler.STOP)
        if self.goes_on(number, epoch=int(result["epoch"]), score=float(result["score"])):
            return str(TrialScheduler.CONTINUE)
        self.stopped.add(number)
        return str(TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        del tune_controller
        error_file = Path(trial.error_file) if trial.error_file else None
        text = error_file.read_text(errors="replace") if error_file and error_file.exists() else ""
        self.errors[int(trial.config["number"])] = text

    def goes_on(self, number: int, *, epoch: int, score: float) -> bool:
        """Whether a trial that has reported an epoch trains further."""
        del number, epoch, score
        return True


class AshaScheduler(FullScheduler):
    """ASHA, stopping form: at each rung a trial goes on only if it is among the best there so far.

    The score at a rung is the best validation value up to that epoch, which is also what a trial is finally ranked by.

    Args:
        history: records of an earlier session of the same run; their rung scores are known from the start.

    Source: Li et al., A System for Massively Parallel Hyperparameter Tuning, arXiv:1810.05934.
    """

    def __init__(
        self,
        *,
        metric: str,
        grace_period: int,
        reduction_factor: int,
        max_epochs: int,
        history: Iterable[TrialRecord] = (),
    ) -> None:
        super().__init__(metric=metric)
        epochs = rung_epochs(grace_period=grace_period, reduction_factor=reduction_factor, max_epochs=max_epochs)
        self.rungs = {epoch: Rung(epoch, metric=metric, reduction_factor=reduction_factor) for epoch in epochs}
        self._recorded: dict[int, int] = {}
        for record in history:
            self._recorded[record.number] = record.epochs
            for epoch, rung in self.rungs.items():
                if epoch in record.curve:
                    rung.scores[record.number] = _best_until(record, epoch, metric=metric)

    def goes_on(self, number: int, *, epoch: int, score: float) -> bool:
        """As the base says; an epoch repeated after a restart, which the trial had passed, was decided then."""
        rung = self.rungs.get(epoch)
        if rung is None or epoch < self._recorded.get(number, 0):
            return True
        return rung.admits(number, score)


def build_scheduler(config: SchedulerConfig, *, metric: str, history: Iterable[TrialRecord] = ()) -> FullScheduler:
    """The configured trial scheduler, with the rungs of an earlier session filled."""
    if config.name == "none":
        return FullScheduler(metric=metric)
    return AshaScheduler(
        metric=metric,
        grace_period=config.grace_period,
        reduction_factor=config.reduction_factor,
        max_epochs=config.max_epochs,
        history=history,
    )


def usable(result: Mapping[str, Any], *, metric: str) -> bool:
    """Whether a result holds a score that can be compared: NaN is not below any cutoff, and must not pass for good."""
    return math.isfinite(result[metric]) and math.isfinite(result["score"])


def _best_until(record: TrialRecord, epoch: int, *, metric: str) -> float:
    best: float | None = None
    for reached, value in record.curve.items():
        if reached <= epoch and is_better(value, best, metric=metric):
            best = value
    return math.nan if best is None else best
