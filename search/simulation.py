"""What would a search have done, had its trials had these curves? Its real searcher and scheduler, a virtual clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from search.algorithm_config import SamplerConfig, SchedulerConfig
from search.budget_config import BudgetConfig
from search.halt import Halt
from search.knowledge import KnownTrial
from search.launch import CAUSE, FAILURE
from search.ledger import Ledger
from search.resources_config import ResourcesConfig
from search.room import Room
from search.scheduler_choice import build_scheduler
from search.schedulers import FullScheduler
from search.searcher import OptunaSearcher
from search.simulated_curves import CurveSource
from search.space import Space
from search.spending import Spending
from search.study import StudyStore
from search.virtual_clock import Job, Report, Trace, replay
from trainables.errors import ConfigError
from trainables.metric_names import METRIC_MODES

# What the actor of a diverged trial reports in its last words (`search.launch`).
_DIVERGED = {FAILURE: "the loss became NaN", CAUSE: "DivergedError"}


@dataclass(frozen=True)
class SimulatedSearch:
    """The parts of a search that decide, without those that train.

    Attributes:
        recipes: tried first.
        known: trials of earlier runs.
    """

    space: Space
    sampler: SamplerConfig
    scheduler: SchedulerConfig
    metric: str = "val_top1"
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    recipes: tuple[Mapping[str, Any], ...] = ()
    known: tuple[KnownTrial, ...] = ()


@dataclass(frozen=True)
class Machinery:
    """What `search.tuner` would hand to Tune, over a study in memory."""

    store: StudyStore
    ledger: Ledger
    halt: Halt
    scheduler: FullScheduler
    searcher: OptunaSearcher


@dataclass(frozen=True)
class Simulated:
    """How a simulated search went: its epochs by time, and study and ledger as a real one would have left them."""

    trace: Trace
    machinery: Machinery


def simulate(
    search: SimulatedSearch,
    curves: CurveSource,
    *,
    devices: int,
    until_s: float = math.inf,
    target: float = math.inf,
) -> Simulated:
    """Runs a search on simulated devices. The same arguments and curves give the same search.

    Args:
        devices: trials at a time.
        until_s: end of the search in virtual seconds; `search.budget` may end it earlier, its `time` does not.
        target: the search is cut off once a trial has this value.

    Raises:
        ConfigError: if the search is endless, or its scheduler hands weights on: the curve of a trial that goes on
            from another's weights is nowhere recorded.
    """
    if search.scheduler.name == "pbt":
        raise ConfigError(
            "scheduler.name: no curve is recorded for trials that inherit weights, found pbt; use another"
        )
    if METRIC_MODES[search.metric] != "max":
        raise ConfigError(f"task.metric: the simulator takes higher for better, found {search.metric}; use another")
    machinery = assemble(search, devices=devices)
    loop = TuneLoop(
        machinery.searcher,
        machinery.scheduler,
        devices=devices,
        metric=search.metric,
        job_of=lambda _, config: Job(config["number"], {**search.space.fixed, **config["params"]}),
        diverged=_DIVERGED,
        over=lambda: machinery.halt.requested,
    )
    trace = replay(loop, curves, devices=devices, until_s=until_s, target=target)
    machinery.searcher.end_running_trials()
    return Simulated(trace, machinery)


def assemble(search: SimulatedSearch, *, devices: int) -> Machinery:
    """Searcher, scheduler and bookkeeping as `search.tuner` wires them."""
    store = StudyStore(None, name="simulation", metric=search.metric, sampler=search.sampler, space=search.space)
    store.begin(search.recipes, search.space, known=search.known)
    ledger, halt = Ledger(metric=search.metric), Halt()
    scheduler = build_scheduler(search.scheduler, metric=search.metric, space=search.space, seed=search.sampler.seed)
    searcher = OptunaSearcher(
        store,
        search.space,
        ledger,
        scheduler=scheduler,
        halt=halt,
        spending=Spending(search.budget, ResourcesConfig()),
        on_finish=lambda _: None,
        max_trials=search.budget.trials,
        room=Room(lambda: devices),
        seed=search.sampler.seed,
    )
    return Machinery(store, ledger, halt, scheduler, searcher)


class TuneLoop:
    """Calls a searcher and a trial scheduler of Ray Tune in the order in which Tune's own loop does.

    Tune keeps one trial at hand beyond those that run, if the searcher has one. The scheduler hears of an epoch first;
    the searcher hears of it then, or, if the trial ends with it, of its end instead. An epoch with which a trial ends
    of its own accord is not put to the scheduler.

    Args:
        job_of: the trial that a searcher's proposal stands for, by Tune's id and the proposed config.
        diverged: what a trial reports that cannot go on; by default it raises.
        over: whether the search has been ended from outside.

    Source: `TuneController._process_trial_result` and `stop_trial` of Ray 2.60.
    """

    def __init__(
        self,
        searcher: Searcher,
        scheduler: TrialScheduler,
        *,
        devices: int,
        metric: str,
        job_of: Callable[[str, dict[str, Any]], Job],
        diverged: Mapping[str, Any] | None = None,
        over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._searcher = searcher
        self._scheduler = scheduler
        self._devices = devices
        self._metric = metric
        self._job_of = job_of
        self._diverged = diverged
        self._over = over
        self._at_hand: SimpleNamespace | None = None
        self._running: dict[Hashable, SimpleNamespace] = {}
        self._num_trials = 0

    @property
    def over(self) -> bool:
        return self._over()

    def next_job(self) -> Job | None:
        trial = self._at_hand or self._ask()
        self._at_hand = None
        if trial is None:
            return None
        self._running[trial.job.key] = trial
        if len(self._running) == self._devices:
            self._at_hand = self._ask()
        job: Job = trial.job
        return job

    def report(self, key: Hashable, report: Report) -> bool:
        trial = self._running[key]
        if report.diverged and self._diverged is None:
            del self._running[key]
            self._scheduler.on_trial_error(None, trial)
            self._searcher.on_trial_complete(trial.trial_id, error=True)
            return False
        result = dict(self._diverged or {}) if report.diverged else self._result(report)
        ends = report.last and not report.diverged
        if not ends and self._scheduler.on_trial_result(None, trial, result) != TrialScheduler.STOP:
            self._searcher.on_trial_result(trial.trial_id, result)
            return True
        del self._running[key]
        self._scheduler.on_trial_complete(None, trial, result)
        self._searcher.on_trial_complete(trial.trial_id, result=result)
        return False

    def _ask(self) -> SimpleNamespace | None:
        trial_id = f"{self._num_trials:05d}"
        config = self._searcher.suggest(trial_id)
        if not isinstance(config, dict):
            return None
        self._num_trials += 1
        # Stands for ray.tune.experiment.Trial, of which schedulers read no more than this.
        trial = SimpleNamespace(trial_id=trial_id, config=config, job=self._job_of(trial_id, config), error_file=None)
        self._scheduler.on_trial_add(None, trial)
        return trial

    def _result(self, report: Report) -> dict[str, Any]:
        return {
            "epoch": report.epoch,
            "training_iteration": report.epoch,
            self._metric: report.value,
            "val_loss": report.loss,
            "score": report.score,
            "best_epoch": report.best_epoch,
            "train_s": report.seconds,
            "val_s": 0.0,
            "images_per_s": 1.0,
            "done": report.last,
        }
