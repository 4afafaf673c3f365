"""How are searcher, scheduler and launch wired into one `ray.tune.Tuner`, started and resumed?"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from typing import Any

import ray
import ray.tune
from ray.tune import PlacementGroupFactory
from ray.tune.experiment import Trial

from search.clock import Clock, HaltStopper
from search.cluster_nodes import check_fits, worker_resources
from search.cluster_state import ClusterWatch, read_cluster, require_answer
from search.config import SearchConfig
from search.ended_trials import EndedTrials
from search.halt import Halt
from search.inheritance import inherit
from search.knowledge import Knowledge, read_knowledge
from search.last_epochs import saved_epochs
from search.launch import Launch
from search.ledger import Ledger
from search.measured_costs import MeasuredCosts
from search.results import RunPaths
from search.room import Room
from search.scheduler_choice import build_scheduler
from search.schedulers import FullScheduler
from search.searcher import OptunaSearcher
from search.spending import Spending
from search.study import StudyStore
from search.trial_host import EndsOnHosts, start_pool
from search.trial_place import recorded_fingerprint
from search.tune_shortcuts import shortened
from search.watchdog import Watchdog
from trainables.data import ImageData
from trainables.object_store import remove

# Settings of Ray that it reads from the environment only.
_RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths in a space file are relative to where the search was started
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # trials write their own TensorBoard files, off Tune's event loop
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # run.py handles Ctrl-C
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed trial reports its cause instead of the metric
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # Tune's own snapshots are never read: the study is the truth
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",  # else Tune goes on with such a trial itself, and nobody is told
    "NO_ALBUMENTATIONS_UPDATE": "1",
    # By default glibc hands freed activations back to the kernel and faults them in again for every batch: a fifth of
    # the time of a small trial was spent in the kernel. Workers keep up to 512 MiB for their next batch instead.
    "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
}

# The same, where the person has not set it. Ray's workers leave the processor to whatever else wants it (niceness 15):
# beside another program on every core a trial trained 16 images a second, and 114 at 5. At 0 it trained 254, but then
# the driver waits for trials that would end sooner.
_NICENESS = "RAY_worker_niceness"

# The store of objects between workers; trials exchange a few numbers only, and share images through files.
_OBJECT_STORE_BYTES = 256 * 2**20

# Trials whose actors may be starting at the same time. Processes start beside each other on the nodes of a cluster;
# and between two looks at what has come Tune asks for no more proposals than these.
_STARTS_AT_A_TIME = 64

# What the driver of a worker group asks for; symbolic.
_DRIVER_BYTES = 2**20


def start_ray(*, address: str | None = None) -> None:
    """Connects to the cluster at an address (or $RAY_ADDRESS), or starts Ray on this machine.

    Raises:
        ConfigError: if nothing answers at the address.
    """
    os.environ.update(_RAY_ENVIRONMENT)
    os.environ.setdefault(_NICENESS, "5")
    if address is None and not os.environ.get("RAY_ADDRESS"):
        ray.init(address="local", include_dashboard=False, log_to_driver=False, object_store_memory=_OBJECT_STORE_BYTES)
    else:
        require_answer(address or os.environ["RAY_ADDRESS"])
        ray.init(address=address, log_to_driver=False)


def run_trials(
    config: SearchConfig,
    paths: RunPaths,
    *,
    data: ImageData,
    ledger: Ledger,
    halt: Halt,
    note: Callable[[str], None] = lambda _: None,
) -> float:
    """Runs the search until its trials, its budget or the person's patience are used up. Needs `start_ray`.

    A run that was begun before goes on: finished trials stay, interrupted ones continue from their checkpoints.

    Args:
        note: shows a person what the search waits for; an empty text when it has come.

    Returns:
        Seconds the search has taken, over all its sessions.

    Raises:
        ConfigError: if a trial does not fit on the cluster, not even when that has grown.
    """
    check_fits(config.resources, config.trial_sizes, read_cluster())  # before anything is written
    remove(paths.summary)  # of an earlier session: it says that the search has ended
    watch = ClusterWatch(
        config.resources, sizes=config.trial_sizes, trials_left=lambda: _trials_left(config, ledger), note=note
    )

    def slots() -> int:
        return watch.slots() * config.resources.trials_at_a_slot

    store = open_study(config, paths)
    clock = Clock(store, halt=halt, limit_s=config.budget.time_s)
    scheduler = build_scheduler(
        config.scheduler,
        metric=config.metric,
        objectives=config.objectives,
        space=config.search_space,
        seed=config.sampler.seed,
    )
    ended = EndedTrials(config, paths)
    searcher = _searcher(
        config,
        paths,
        store=store,
        scheduler=scheduler,
        ledger=ledger,
        halt=halt,
        costs=MeasuredCosts(config, data),
        slots=slots,
        ended=ended,
    )
    pool = start_pool(config.resources) if config.resources.fused else None
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(max(_STARTS_AT_A_TIME, config.resources.trials_at_a_slot))
    watchdog = Watchdog(
        scheduler,
        config.resources,
        on_hang=lambda number: None if pool is None else pool.lose.remote(number),
        placed_s=lambda number: math.inf if pool is None else ray.get(pool.seated_s.remote(number)),
    )
    tuner = ray.tune.Tuner(
        _trainable(config, paths, pool),
        tune_config=ray.tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,
            # The driver of a worker group keeps it for its next trial, which has to be as large.
            reuse_actors=len(config.trial_sizes) == 1,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=ray.tune.RunConfig(
            name="tune",
            storage_path=str(paths.tune.parent),
            stop=HaltStopper(halt, clock),
            callbacks=[watchdog, *([] if pool is None else [EndsOnHosts(pool)])],
            verbose=0,
        ),
    )
    clock.tick()
    try:
        if not halt.requested:  # as the budget is, of a run that has used it up
            with shortened(slots):
                tuner.fit()
    finally:
        watch.close()
        if pool is not None:
            ray.kill(pool)
    clock.save()
    if halt.interrupted:
        searcher.keep_paused_trials()
    else:
        searcher.end_running_trials(
            lambda record: saved_epochs(paths.trial(record.number), best_epoch=record.best_epoch)
        )
        ended.tidy_up()
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
    costs: MeasuredCosts,
    slots: Callable[[], int],
    ended: EndedTrials,
) -> OptunaSearcher:
    return OptunaSearcher(
        store,
        config.search_space,
        ledger,
        scheduler=scheduler,
        halt=halt,
        spending=Spending(config.budget, config.resources),
        on_finish=ended.add,
        on_take_up=ended.take_up,
        inherit=lambda record: inherit(record, paths, config=config.trial_config(record.params)),
        measure=costs.of,
        limits=config.limits,
        objectives=config.objectives,
        max_trials=config.budget.trials,
        room=Room(slots, sizes=config.trial_sizes, most=config.resources.max_concurrent_trials),
        workers_of=config.workers_of,
        retries=config.resources.retries,
        seed=config.sampler.seed,
    )


def _trials_left(config: SearchConfig, ledger: Ledger) -> int | None:
    """How many trials are still to end; None where their number is not limited."""
    if config.budget.trials is None:
        return None
    return max(0, config.budget.trials - ledger.totals.finished)


def open_study(config: SearchConfig, paths: RunPaths) -> StudyStore:
    """The run's study; a new one receives what is known of earlier runs, and the starting points."""
    space = config.search_space
    store = StudyStore(
        paths.study,
        name=paths.name,
        metric=config.metric,
        objectives=config.objectives,
        sampler=config.sampler,
        space=space,
    )
    knowledge = read_knowledge(paths) or Knowledge()
    store.begin(config.first_points(knowledge.points), space, known=knowledge.trials)
    return store


def _trial_name(trial: Trial) -> str:
    # Tune's own names spell out every parameter, which can outgrow what a file system takes.
    return f"trial-{trial.config['number']:04d}-{trial.trial_id}"


def _trainable(config: SearchConfig, paths: RunPaths, pool: Any) -> Any:
    launch = Launch(str(paths.root), config, pool=pool, fingerprint=recorded_fingerprint(paths))
    of_worker = PlacementGroupFactory([worker_resources(config.resources)])
    # The searcher keeps as many trials running as worker groups fit. Their drivers must not take the CPU that a group
    # needs (2 CPUs hold a group of two one-CPU workers only if its driver asks for none), and Ray does not take a
    # request for nothing: they ask for a little of the memory.
    of_driver = PlacementGroupFactory([{"CPU": 0, "memory": _DRIVER_BYTES}])

    def resources(trial: dict[str, Any]) -> PlacementGroupFactory:
        return of_driver if config.workers_of(trial["params"]) > 1 else of_worker

    if len(config.trial_sizes) > 1:
        return ray.tune.with_resources(launch.trainable(), resources)
    is_driver = pool is not None or config.trial_sizes[0] > 1
    return ray.tune.with_resources(launch.trainable(), of_driver if is_driver else of_worker)
