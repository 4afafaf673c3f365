"""How are searcher, scheduler and launch wired into one `ray.tune.Tuner`, started and resumed?"""

from __future__ import annotations

import os
import shutil
import time
from typing import Any

import ray
import ray.tune
from ray.tune.experiment import Trial
from ray.tune.stopper import Stopper

from search.config import ResourcesConfig, SearchConfig
from search.inheritance import inherit
from search.keep import Keeper
from search.launch import Launch, concurrent_trials, worker_resources
from search.ledger import Ledger, Status, TrialRecord
from search.limits import Limits
from search.proposals import Limit
from search.results import RunPaths
from search.scheduler_choice import build_scheduler
from search.schedulers import FullScheduler
from search.searcher import Halt, OptunaSearcher
from search.spending import Spending
from search.study import ELAPSED_S, StudyStore
from trainables.checkpoint import TrialFiles
from trainables.data import ImageData

# Settings of Ray that it reads from the environment only.
_RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths in a space file are relative to where the search was started
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # trials write their own TensorBoard files, off Tune's event loop
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # run.py handles Ctrl-C
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed trial reports its cause instead of the metric
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # Tune's own snapshots are never read: the study is the truth
    "NO_ALBUMENTATIONS_UPDATE": "1",
    # By default glibc hands freed activations back to the kernel and faults them in again for every batch: a fifth of
    # the time of a small trial was spent in the kernel. Workers keep up to 512 MiB for their next batch instead.
    "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
}

# The store of objects between workers; trials exchange a few numbers only, and share images through files.
_OBJECT_STORE_BYTES = 256 * 2**20

# What the driver of a worker group asks for; symbolic.
_DRIVER_BYTES = 2**20


def start_ray(resources: ResourcesConfig, *, address: str | None) -> None:
    """Connects to the cluster at an address (or $RAY_ADDRESS), or starts Ray on this machine.

    Raises:
        ConnectionError: if nothing answers at the address.
    """
    os.environ.update(_RAY_ENVIRONMENT)
    if address is None and not os.environ.get("RAY_ADDRESS"):
        # Worker groups need the dashboard's State API: without it their placement groups are never freed.
        ray.init(
            include_dashboard=resources.workers > 1,
            log_to_driver=False,
            object_store_memory=_OBJECT_STORE_BYTES,
        )
    else:
        ray.init(address=address, log_to_driver=False)


def run_trials(config: SearchConfig, paths: RunPaths, *, data: ImageData, ledger: Ledger, halt: Halt) -> float:
    """Runs the search until its trials, its budget or the person's patience are used up. Needs `start_ray`.

    A run that was begun before goes on: finished trials stay, interrupted ones continue from their checkpoints.

    Returns:
        Seconds the search has taken, over all its sessions.

    Raises:
        ConfigError: if no trial fits on the cluster.
    """
    max_concurrent = concurrent_trials(config.resources, cluster=ray.cluster_resources())  # before anything is written
    store = open_study(config, paths)
    clock = Clock(store, halt=halt, limit_s=config.budget.time_s)
    space, metric = config.search_space, config.task.metric
    scheduler = build_scheduler(config.scheduler, metric=metric, space=space, seed=config.sampler.seed)
    searcher = _searcher(
        config,
        paths,
        store=store,
        scheduler=scheduler,
        ledger=ledger,
        halt=halt,
        limit=Limits(config, data).reason_against,
        max_concurrent=max_concurrent,
    )
    tuner = ray.tune.Tuner(
        _trainable(config, paths),
        tune_config=ray.tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,
            # A worker group's trial is a driver only, and Ray cannot reset it for the next.
            reuse_actors=config.resources.workers == 1,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=ray.tune.RunConfig(
            name="tune", storage_path=str(paths.tune.parent), stop=HaltStopper(halt, clock), verbose=0
        ),
    )
    tuner.fit()
    clock.save()
    if halt.interrupted:
        searcher.keep_paused_trials()
    else:
        searcher.end_running_trials()
    shutil.rmtree(paths.tune, ignore_errors=True)
    return clock.elapsed_s


def _searcher(
    config: SearchConfig,
    paths: RunPaths,
    *,
    store: StudyStore,
    scheduler: FullScheduler,
    ledger: Ledger,
    halt: Halt,
    limit: Limit,
    max_concurrent: int,
) -> OptunaSearcher:
    keeper = Keeper(
        config.keep,
        metric=config.task.metric,
        weights=lambda number: TrialFiles(paths.trial(number)).best_weights,
        at_least=config.final.top_k,
    )
    keeper.take_up(record for record in store.records() if record.status is not Status.RUNNING)

    def tidy(record: TrialRecord) -> None:
        # Nothing resumes a trial that has ended.
        TrialFiles(paths.trial(record.number)).checkpoint.unlink(missing_ok=True)
        keeper.ended(record)

    return OptunaSearcher(
        store,
        config.search_space,
        ledger,
        scheduler=scheduler,
        halt=halt,
        spending=Spending(config.budget, config.resources),
        on_finish=tidy,
        inherit=lambda record: inherit(record, paths, config=config.trial_config(record.params)),
        limit=limit,
        max_trials=config.budget.trials,
        max_concurrent=max_concurrent,
        # With the next trial at hand no actor waits for a proposal, which then knows one result less. Not with one
        # trial at a time, whose search is to repeat exactly, nor with worker groups, whose drivers would all start.
        ahead=1 if max_concurrent > 1 and config.resources.workers == 1 else 0,
        seed=config.sampler.seed,
    )


def open_study(config: SearchConfig, paths: RunPaths) -> StudyStore:
    """The run's study; a new one receives the starting points, to be tried first."""
    space = config.search_space
    store = StudyStore(paths.study, name=paths.name, metric=config.task.metric, sampler=config.sampler, space=space)
    store.add_recipes(config.starting_points, space)
    return store


class Clock:
    """Seconds a search has taken over all its sessions; kept in the study, so that a time budget outlives a kill."""

    SAVE_EVERY_S = 10.0

    def __init__(self, store: StudyStore, *, halt: Halt, limit_s: float | None) -> None:
        self._store = store
        self._halt = halt
        self._limit_s = limit_s
        self._before: float = store.study.user_attrs.get(ELAPSED_S, 0.0)
        self._started = time.monotonic()
        self._saved = self._started

    @property
    def elapsed_s(self) -> float:
        return self._before + time.monotonic() - self._started

    def tick(self) -> None:
        """Ends the search when its time is over."""
        if self._limit_s is not None and self.elapsed_s >= self._limit_s:
            self._halt.because(f"the budget of {self._limit_s:g} s is used up")
        if time.monotonic() - self._saved > self.SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        self._store.study.set_user_attr(ELAPSED_S, round(self.elapsed_s, 3))
        self._saved = time.monotonic()


class HaltStopper(Stopper):  # type: ignore[misc]
    """Tells Tune's loop that the search is to end."""

    def __init__(self, halt: Halt, clock: Clock) -> None:
        self._halt = halt
        self._clock = clock

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        del trial_id, result
        return False

    def stop_all(self) -> bool:
        self._clock.tick()
        return self._halt.requested

    def __getstate__(self) -> dict[str, Any]:
        return {}  # pickled with the Tuner and never read back


def _trial_name(trial: Trial) -> str:
    # Tune's own names spell out every parameter, which can outgrow what a file system takes.
    return f"trial-{trial.config['number']:04d}-{trial.trial_id}"


def _trainable(config: SearchConfig, paths: RunPaths) -> Any:
    resources = config.resources
    launch = Launch(run=str(paths.root), config=config)
    if resources.workers > 1:
        # The searcher keeps as many trials running as worker groups fit. Their drivers must not take the CPU that a
        # group needs (2 CPUs hold a group of two one-CPU workers only if its driver asks for none), and Ray does not
        # take a request for nothing: they ask for a little of the memory.
        return ray.tune.with_resources(launch.trainable(), {"CPU": 0, "memory": _DRIVER_BYTES})
    return ray.tune.with_resources(launch.trainable(), worker_resources(resources))
