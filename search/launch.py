"""On what does a trial run? In its own reused actor, or on a Ray Train worker group; always through `train`."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from search.config import ResourcesConfig
from trainables.config import TrialConfig
from trainables.errors import ConfigError, VistuneError

# Key of a result that says: this trial cannot go on, and why. Sent as a result rather than raised, because an
# exception costs the actor, and a new actor costs seconds of imports.
FAILURE = "failure"
CAUSE = "cause"


@dataclass(frozen=True)
class TrialTask:
    """What an actor is told: which trial, where its files lie, and on what it runs.

    Attributes:
        scratch_dir: for Ray Train's own bookkeeping, which nobody reads; what a resume needs is in `trial_dir`.
    """

    number: int
    trial_dir: str
    scratch_dir: str
    trial: dict[str, Any]
    workers: int
    cpus_per_worker: float
    gpus_per_worker: float

    def as_config(self) -> dict[str, Any]:
        """The task as Ray Tune carries it."""
        return asdict(self)

    @property
    def num_threads(self) -> int:
        return max(1, int(self.cpus_per_worker))


def run_in_actor(config: dict[str, Any]) -> None:
    """The Tune function of a one-worker trial: trains in the actor that Tune gave it."""
    from trainables.ray_runtime import TuneRuntime
    from trainables.train import train

    task = TrialTask(**config)
    runtime = TuneRuntime(trial_dir=Path(task.trial_dir), num_threads=task.num_threads)
    trial_config = TrialConfig.model_validate(task.trial)
    report_failure_of(lambda: train(trial_config, runtime), task)


def run_on_worker_group(config: dict[str, Any]) -> None:
    """The Tune function of a trial with several workers: drives a Ray Train worker group and forwards its reports."""
    task = TrialTask(**config)
    report_failure_of(lambda: _fit_worker_group(task), task)


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
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "out of memory" in str(error).lower():
        return "out of memory"
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


def _fit_worker_group(task: TrialTask) -> None:
    import ray.train
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    resources = {"CPU": task.cpus_per_worker}
    if task.gpus_per_worker:
        resources["GPU"] = task.gpus_per_worker
    trainer = TorchTrainer(
        run_in_worker,
        train_loop_config=task.as_config(),
        scaling_config=ray.train.ScalingConfig(
            num_workers=task.workers, use_gpu=task.gpus_per_worker > 0, resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(
            name=f"train-{task.number:04d}", storage_path=task.scratch_dir, callbacks=[TuneReportCallback()]
        ),
    )
    trainer.fit()


def run_in_worker(config: dict[str, Any]) -> None:
    """One worker of a Ray Train group."""
    from trainables.ray_runtime import TrainRuntime
    from trainables.train import train

    task = TrialTask(**config)
    train(
        TrialConfig.model_validate(task.trial),
        TrainRuntime(trial_dir=Path(task.trial_dir), num_threads=task.num_threads),
    )


def concurrent_trials(resources: ResourcesConfig, *, cluster: dict[str, float]) -> int:
    """How many trials fit on a cluster at once.

    Args:
        cluster: the cluster's resources as Ray counts them: CPU, GPU.

    Raises:
        ConfigError: if not even one trial fits; says what one needs and what there is.
    """
    needs = {
        "CPU": resources.workers * resources.cpus_per_worker,
        "GPU": resources.workers * resources.gpus_per_worker,
    }
    fits = [int(cluster.get(kind, 0.0) / amount + 1e-6) for kind, amount in needs.items() if amount > 0]
    most = min(fits)
    if most < 1:
        asked = " and ".join(f"{amount:g} {kind}" for kind, amount in needs.items() if amount > 0)
        there = " and ".join(f"{cluster.get(kind, 0.0):g} {kind}" for kind, amount in needs.items() if amount > 0)
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
