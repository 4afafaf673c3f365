"""On what does a trial run? In its own reused actor, or on a Ray Train worker group; always through `train`."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.config import SearchConfig
from search.redaction import redacted
from search.resources_config import ResourcesConfig
from search.results import RunPaths, write_text
from trainables.config import TrialConfig
from trainables.errors import DisturbedError, SupersededError, VistuneError

if TYPE_CHECKING:
    from search.restarts import Interruption
    from search.worker_group import WorkerGroup

# Key of a result that says: this trial cannot go on, and why. Sent as a result rather than raised, because an
# exception costs the actor, and a new actor costs seconds of imports.
FAILURE = "failure"
CAUSE = "cause"
# Key of such a result where the trial lost a worker, and which `search.restarts.Kind` of loss it was.
INTERRUPTION = "interruption"
OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True)
class TrialTask:
    """What a worker is told: which trial, where its files lie, and on what it runs.

    Attributes:
        fingerprint: of the images that the run began with; None where they are not to be compared.
    """

    number: int
    trial_dir: str
    trial: dict[str, Any]
    num_threads: int
    workers: int = 1
    fingerprint: str | None = None

    @cached_property
    def config(self) -> TrialConfig:
        """What is trained, validated once in a process."""
        return TrialConfig.model_validate(self.trial)

    @property
    def kind(self) -> str:
        """Trials of the same kind can perhaps be fused."""
        return f"{self.trial.get('arch')}, batches of {self.trial.get('batch_size')}"


@dataclass(frozen=True)
class Launch:
    """What all trials of a search have in common; sent to an actor once, so that a trial is a number and parameters.

    Attributes:
        run: the run's folder.
        pool: the `HostPool` whose hosts train the trials; None where each trains in its own actor.
        fingerprint: of the driver's images.
    """

    run: str
    config: SearchConfig
    pool: Any = None
    fingerprint: str | None = None

    @cached_property
    def _shared(self) -> dict[str, Any]:
        return self.config.shared_by_trials()

    @property
    def resources(self) -> ResourcesConfig:
        return self.config.resources

    @property
    def keeps_groups(self) -> bool:
        """Whether a worker group serves more than one trial: not where the next may be of another size."""
        return len(self.config.trial_sizes) == 1

    def task(self, number: int, params: Mapping[str, Any]) -> TrialTask:
        return TrialTask(
            number=number,
            trial_dir=str(RunPaths(Path(self.run)).trial(number)),
            trial={**self._shared, **self.config.trial_fields(params)},
            num_threads=self.resources.num_threads,
            workers=self.config.workers_of(params),
            fingerprint=self.fingerprint,
        )

    def trainable(self) -> Callable[[dict[str, Any]], None]:
        """The function that Tune calls with `{number, params}`."""
        from search.early_start import EarlyStart

        def trial(config: dict[str, Any]) -> None:
            task = self.task(config["number"], config["params"])
            if self.pool is not None:
                run_trial = run_on_host
            else:
                run_trial = run_on_worker_group if task.workers > 1 else run_in_actor
            report_failure_of(lambda: run_trial(task, self), task)

        trial.__mixins__ = (EarlyStart,)  # type: ignore[attr-defined]  # Tune's name for what its class inherits first
        return trial


def run_in_actor(task: TrialTask, launch: Launch) -> None:
    """A one-worker trial: trains in the actor that Tune gave it."""
    del launch
    from search.trial_place import at_its_place
    from trainables.ray_runtime import TuneRuntime
    from trainables.train import train

    with at_its_place(task):
        train(
            task.config,
            TuneRuntime(trial_dir=Path(task.trial_dir), num_threads=task.num_threads),
        )


def run_on_host(task: TrialTask, launch: Launch) -> None:
    """One of several trials in a process."""
    import ray.tune

    from search.trial_host import train_on_host

    train_on_host(task, launch.pool, report=ray.tune.report)


def run_on_worker_group(task: TrialTask, launch: Launch) -> None:
    """A trial with several workers: drives a Ray Train worker group and forwards its reports."""
    import ray.tune

    group = _group_for(task, launch)
    try:
        group.train(task, report=ray.tune.report)
    finally:
        if not launch.keeps_groups:
            group.close()


# The worker group that this process drives, from one trial to the next.
_groups: list[WorkerGroup] = []


def _group_for(task: TrialTask, launch: Launch) -> WorkerGroup:
    from search.worker_group import WorkerGroup

    if not _groups or _groups[-1].is_over:
        scratch = str(RunPaths(Path(launch.run)).tune)
        _groups[:] = [WorkerGroup(task.workers, launch.resources, scratch=scratch)]
    return _groups[-1]


def report_failure_of(body: Callable[[], Any], task: TrialTask) -> None:
    """Runs a trial; if it raises, its cause becomes a file and a result instead of a dead actor.

    Errors of the CUDA context are raised on: no later trial could use that process.
    """
    import ray.tune

    from search.interruptions import interruption_of
    from trainables.checkpoint import TrialFiles

    try:
        body()
    except Exception as error:
        root = root_cause(error)
        lost = interruption_of_files(root) or interruption_of(error, in_group=task.workers > 1)
        if lost is not None:
            ray.tune.report({FAILURE: lost.message, CAUSE: lost.kind.value, INTERRUPTION: lost.kind.value})
            return
        told = redacted("".join(traceback.format_exception(error)))
        write_text(TrialFiles(Path(task.trial_dir)).failure, told)
        if breaks_the_process(root):
            raise
        ray.tune.report({FAILURE: message_of(root), CAUSE: cause_of(root)})


def interruption_of_files(error: BaseException) -> Interruption | None:
    """What is no fault of the trial: its node lacks what all share, or another trial or process got in its way."""
    from search.halt import STORAGE_FAILS
    from search.restarts import Interruption, Kind
    from search.trial_place import UnfitNodeError
    from trainables.storage_errors import storage_error

    if isinstance(error, DisturbedError):
        return Interruption(Kind.DISTURBED, message_of(error))
    if isinstance(error, SupersededError):
        return Interruption(Kind.LOST, message_of(error))
    if isinstance(error, UnfitNodeError):
        return Interruption(Kind.STORAGE, message_of(error))
    found = None if isinstance(error, VistuneError) else storage_error(error)
    return None if found is None else Interruption(Kind.STORAGE, f"{STORAGE_FAILS}: {message_of(found)}")


def cause_of(error: BaseException) -> str:
    """A short name for the kind of failure, the same for all trials that fail for the same reason."""
    from trainables.memory import is_out_of_memory

    if is_out_of_memory(error):
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


def message_of(error: BaseException) -> str:
    """One line of what an error says, without secrets."""
    lines = redacted(str(error)).strip().splitlines()
    return lines[0][:500] if lines else type(error).__name__


def breaks_the_process(error: BaseException) -> bool:
    """Whether no later trial could use the process: the error is of the CUDA context."""
    import torch

    return isinstance(error, torch.AcceleratorError) and not isinstance(error, torch.OutOfMemoryError)
