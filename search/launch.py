"""On what does a trial run? In its own reused actor, or on a Ray Train worker group; always through `train`."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from search.config import ResourcesConfig, SearchConfig
from search.results import RunPaths
from trainables.config import TrialConfig
from trainables.errors import ConfigError, OutOfMemoryError, VistuneError

# Key of a result that says: this trial cannot go on, and why. Sent as a result rather than raised, because an
# exception costs the actor, and a new actor costs seconds of imports.
FAILURE = "failure"
CAUSE = "cause"
OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True)
class TrialTask:
    """What a worker is told: which trial, where its files lie, and on what it runs."""

    number: int
    trial_dir: str
    trial: dict[str, Any]
    num_threads: int


@dataclass(frozen=True)
class Launch:
    """What all trials of a search have in common; sent to an actor once, so that a trial is a number and parameters.

    Attributes:
        run: the run's folder.
    """

    run: str
    config: SearchConfig

    @cached_property
    def _shared(self) -> dict[str, Any]:
        return self.config.shared_by_trials()

    @property
    def resources(self) -> ResourcesConfig:
        return self.config.resources

    def task(self, number: int, params: Mapping[str, Any]) -> TrialTask:
        return TrialTask(
            number=number,
            trial_dir=str(RunPaths(Path(self.run)).trial(number)),
            trial={**self._shared, **self.config.trial_fields(params)},
            num_threads=max(1, int(self.resources.cpus_per_worker)),
        )

    def trainable(self) -> Callable[[dict[str, Any]], None]:
        """The function that Tune calls with `{number, params}`."""
        run_trial = run_on_worker_group if self.resources.workers > 1 else run_in_actor

        def trial(config: dict[str, Any]) -> None:
            task = self.task(config["number"], config["params"])
            report_failure_of(lambda: run_trial(task, self), task)

        return trial


def run_in_actor(task: TrialTask, launch: Launch) -> None:
    """A one-worker trial: trains in the actor that Tune gave it."""
    del launch
    from trainables.ray_runtime import TuneRuntime
    from trainables.train import train

    train(
        TrialConfig.model_validate(task.trial),
        TuneRuntime(trial_dir=Path(task.trial_dir), num_threads=task.num_threads),
    )


def run_on_worker_group(task: TrialTask, launch: Launch) -> None:
    """A trial with several workers: drives a Ray Train worker group and forwards its reports."""
    from ray.tune.integration.ray_train import TuneReportCallback

    scratch = str(RunPaths(Path(launch.run)).tune)
    run_on_group(task, launch.resources, scratch=scratch, name=f"train-{task.number:04d}", report=TuneReportCallback())


def run_on_group(task: TrialTask, resources: ResourcesConfig, *, scratch: str, name: str, report: Any = None) -> None:
    """Trains on a Ray Train worker group.

    Args:
        scratch: folder for Ray Train's own bookkeeping; what a resume needs is written by `train`.
        report: callback that forwards the reports of the group.
    """
    import ray.train
    from ray.train.torch import TorchTrainer

    TorchTrainer(
        run_in_worker,
        train_loop_config=asdict(task),
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=worker_resources(resources),
        ),
        run_config=ray.train.RunConfig(name=name, storage_path=scratch, callbacks=[] if report is None else [report]),
    ).fit()


def run_in_worker(config: dict[str, Any]) -> None:
    """One worker of a Ray Train group."""
    from trainables.ray_runtime import TrainRuntime
    from trainables.train import train

    task = TrialTask(**config)
    train(
        TrialConfig.model_validate(task.trial),
        TrainRuntime(trial_dir=Path(task.trial_dir), num_threads=task.num_threads),
    )


def report_failure_of(body: Callable[[], Any], task: TrialTask) -> None:
    """Runs a trial; if it raises, its cause becomes a file and a result instead of a dead actor.

    Errors of the CUDA context are raised on: no later trial could use that process.
    """
    import ray.tune

    from trainables.checkpoint import TrialFiles

    try:
        body()
    except Exception as error:
        root = root_cause(error)
        told = TrialFiles(Path(task.trial_dir)).failure
        told.parent.mkdir(parents=True, exist_ok=True)
        told.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        if _breaks_the_process(root):
            raise
        ray.tune.report({FAILURE: _message(root), CAUSE: cause_of(root)})


def cause_of(error: BaseException) -> str:
    """A short name for the kind of failure, the same for all trials that fail for the same reason."""
    from trainables.memory import is_out_of_memory

    if isinstance(error, OutOfMemoryError) or is_out_of_memory(error):
        return OUT_OF_MEMORY
    return type(error).__name__


def root_cause(error: BaseException) -> BaseException:
    """The training function's own error inside what Ray Train wraps around it."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        return root_cause(failures[min(failures)])
    wrapped = getattr(error, "_base_exc", None) or getattr(error, "cause", None)
    if isinstance(wrapped, BaseException) and not isinstance(error, VistuneError):
        return root_cause(wrapped)
    return error


def worker_resources(resources: ResourcesConfig) -> dict[str, float]:
    """What one worker asks of the cluster, as Ray counts it."""
    needs = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    return {kind: amount for kind, amount in needs.items() if amount > 0}


def concurrent_trials(resources: ResourcesConfig, *, cluster: dict[str, float]) -> int:
    """How many trials fit on a cluster at once.

    Args:
        cluster: the cluster's resources as Ray counts them: CPU, GPU.

    Raises:
        ConfigError: if not even one trial fits; says what one needs and what there is.
    """
    needs = {kind: resources.workers * amount for kind, amount in worker_resources(resources).items()}
    most = min(int(cluster.get(kind, 0.0) / amount + 1e-6) for kind, amount in needs.items())
    if most < 1:
        asked = " and ".join(f"{amount:g} {kind}" for kind, amount in needs.items())
        there = " and ".join(f"{cluster.get(kind, 0.0):g} {kind}" for kind in needs)
        raise ConfigError(
            f"resources: one trial needs {asked} ({resources.workers} workers), the cluster has {there}; "
            f"lower resources.workers, cpus_per_worker or gpus_per_worker, or give --address of a larger cluster"
        )
    return min(most, resources.max_concurrent_trials or most)


def _message(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:500] if lines else type(error).__name__


def _breaks_the_process(error: BaseException) -> bool:
    import torch

    return isinstance(error, torch.AcceleratorError) and not isinstance(error, torch.OutOfMemoryError)
