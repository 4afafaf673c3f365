"""Trains configurations anew, as trials are trained: on the resources of trials, as many at a time as fit."""

from __future__ import annotations

import logging
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray

from search.cluster_nodes import worker_resources
from search.cluster_state import have_left, leaving_nodes, read_cluster
from search.config import SearchConfig
from search.halt import Halt
from search.interruptions import interruption_of
from search.launch import TrialTask, cause_of, interruption_of_files, message_of, root_cause
from search.pulse import NODE, Pulse
from search.resources_config import ResourcesConfig
from search.restarts import Kind, Restarts
from search.results import RunPaths
from search.trial_place import recorded_fingerprint
from search.worker_group import WorkerGroup
from trainables.checkpoint import TrialFiles, newest_epoch
from trainables.config import TrialConfig
from trainables.errors import VistuneError
from trainables.object_store import remove

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retrained:
    """One training of a candidate.

    Attributes:
        folder: where its weights lie.
        score: the best validation value; None in stage 2, which validates nothing.
        best_epoch: that of the score, or the last.
    """

    trial: int
    seed: int
    folder: Path
    score: float | None
    best_epoch: int


class Interrupted(Exception):  # noqa: N818
    """A person asked for the end while the best trials were trained again."""


@dataclass(frozen=True)
class _Attempt:
    """An attempt at a training.

    Attributes:
        key: trial number and seed.
        name: that no other attempt has.
        node: where it ran, once it has ended; None if it has not begun, and for groups.
    """

    key: tuple[int, int]
    trial: TrialConfig
    name: str
    node: str | None = None


class Runner:
    """Trains configurations as trials are trained, as many at a time as the cluster holds and the search may run."""

    def __init__(self, config: SearchConfig, paths: RunPaths, *, halt: Halt, note: Callable[[str], None]) -> None:
        self._resources = config.resources
        self._paths = paths
        self._halt = halt
        self._note = note
        self._fingerprint = recorded_fingerprint(paths)
        self._restarts: dict[Path, Restarts] = {}
        self.failures: list[str] = []

    def train(self, trials: Mapping[tuple[int, int], TrialConfig], *, title: str) -> list[Retrained]:
        """Trains each configuration, keyed by trial number and seed; those that fail are left out, and said.

        Raises:
            Interrupted: when the halt is, or where the results folder cannot be written; what was finished stays.
        """
        pulse = Pulse(self._resources)
        try:
            found = self._train(trials, pulse, title=title)
        finally:
            pulse.close()
        return [found[key] for key in trials if key in found]

    def _train(
        self, trials: Mapping[tuple[int, int], TrialConfig], pulse: Pulse, *, title: str
    ) -> dict[tuple[int, int], Retrained]:
        ahead = deque(trials.items())
        waiting: dict[Any, _Attempt] = {}
        found: dict[tuple[int, int], Retrained] = {}
        most = self._resources.max_concurrent_trials or self._at_a_time(len(trials))

        def start(key: tuple[int, int], trial: TrialConfig) -> None:
            attempt = _Attempt(key, trial, name=uuid.uuid4().hex)
            pulse.watch(attempt.name)
            waiting[self._start(attempt, pulse.ear)] = attempt

        def end(task: Any) -> _Attempt:
            attempt = waiting.pop(task)
            node = pulse.node(attempt.name)
            pulse.forget(attempt.name)
            return replace(attempt, node=node)

        while ahead or waiting:
            while ahead and len(waiting) < most:
                start(*ahead.popleft())
            self._note(f"{title}: {len(trials) - len(ahead) - len(waiting)} of {len(trials)}")
            done, _ = ray.wait(list(waiting), timeout=1.0)
            leaving_nodes()  # who has been told to leave is forgotten by Ray once it is gone
            if self._halt.interrupted:
                for task in waiting:
                    ray.cancel(task, force=True)
                raise Interrupted
            for task in done:
                attempt = end(task)
                try:
                    found[attempt.key] = self._result(task, attempt)
                except (ray.exceptions.RayError, VistuneError) as error:
                    if self._goes_on(error, attempt):
                        start(attempt.key, attempt.trial)
                    else:
                        root = root_cause(error)
                        self._note_failure(attempt, f"{cause_of(root)}: {message_of(root)}")
            hanging = pulse.silent()
            for task in [task for task, attempt in waiting.items() if attempt.name in hanging]:
                attempt = end(task)
                ray.cancel(task, force=True)
                self._note_failure(attempt, f"{Kind.HUNG.value}: {hanging[attempt.name]}")
        return found

    def _at_a_time(self, count: int) -> int:
        """Of groups no more than fit and one, for which a cluster may grow; what waits of them holds actors already."""
        if not self._resources.has_groups:
            return count
        return read_cluster().slots(worker_resources(self._resources)) // 2 + 1

    def _start(self, attempt: _Attempt, ear: Any) -> Any:
        trial = attempt.trial
        task = TrialTask(
            number=attempt.key[0],
            trial_dir=str(self._folder(attempt)),
            trial=trial.model_dump(mode="json"),
            num_threads=self._resources.num_threads,
            workers=self._resources.workers_of(trial.arch),
            fingerprint=self._fingerprint,
        )
        needs = worker_resources(self._resources)
        if task.workers > 1:  # the group has its own; its driver asks for a token of memory only
            remote = ray.remote(_train_on_group).options(num_cpus=0, max_retries=0)
            return remote.remote(task, self._resources, str(self._paths.tune), ear, attempt.name)
        # Given to `remote`, not to `options`: only then Ray ends the process of a task that had a GPU.
        asks = {"num_cpus": needs.pop("CPU", 0), "num_gpus": needs.pop("GPU", 0), "resources": needs}
        return ray.remote(max_retries=0, **asks)(_train_here).remote(task, ear, attempt.name)

    def _folder(self, attempt: _Attempt) -> Path:
        number, seed = attempt.key
        # Where a later session retries a seed that failed, the epochs of the refits may become others.
        epochs = attempt.trial.refit_epochs
        stage = "validated" if epochs is None else f"refitted{epochs}"
        return self._paths.final / f"{number:04d}-{stage}-seed{seed}"

    def _goes_on(self, error: Exception, attempt: _Attempt) -> bool:
        """Whether a training that has lost its worker is to go on from its checkpoint, as a trial of the search is.

        Raises:
            Interrupted: if the results folder cannot be written.
        """
        in_group = self._resources.workers_of(attempt.trial.arch) > 1
        lost = interruption_of_files(root_cause(error)) or interruption_of(error, in_group=in_group)
        if lost is None:
            return False
        if lost.kind is Kind.LOST and attempt.node is not None and have_left({attempt.node}):
            lost = replace(lost, kind=Kind.PREEMPTED)
        if lost.kind is Kind.STORAGE:
            self._halt.because(lost.message, interrupted=True)
            raise Interrupted
        folder = self._folder(attempt)
        saved = newest_epoch(TrialFiles(folder))
        restarts = self._restarts.get(folder, Restarts()).after(lost.kind, epoch=saved)
        self._restarts[folder] = restarts
        if not lost.may_go_on or restarts.in_a_row > self._resources.retries:
            return False
        _log.warning("%s, epoch %d: %s, goes on: %s", folder.name, saved, lost.kind.value, lost.message)
        return True

    def _note_failure(self, attempt: _Attempt, what: str) -> None:
        number, seed = attempt.key
        self.failures.append(f"trial {number}, seed {seed}: {what}")
        _log.warning("retraining failed: %s", self.failures[-1])

    def _result(self, task: Any, attempt: _Attempt) -> Retrained:
        number, seed = attempt.key
        folder = self._folder(attempt)
        metrics: dict[str, float] = ray.get(task)
        # The last checkpoint says that this is done, and how it went; it holds no weights any more.
        remove(TrialFiles(folder).previous_checkpoint)
        return Retrained(
            trial=number,
            seed=seed,
            folder=folder,
            score=metrics.get("score"),
            best_epoch=int(metrics["best_epoch"]),
        )


def _train_here(task: TrialTask, ear: Any, name: str) -> dict[str, float]:
    """Trains on the resources that Ray gave this task."""
    ear.tell.remote(name, {NODE: ray.get_runtime_context().get_node_id()})  # first: an import may hang as well
    from search.trial_place import at_its_place
    from trainables.ray_runtime import TaskRuntime
    from trainables.train import train

    runtime = TaskRuntime(
        trial_dir=Path(task.trial_dir),
        num_threads=task.num_threads,
        tell=lambda metrics: ear.tell.remote(name, dict(metrics)),
    )
    with at_its_place(task):
        return train(task.config, runtime)


def _train_on_group(task: TrialTask, resources: ResourcesConfig, scratch: str, ear: Any, name: str) -> dict[str, float]:
    """Trains on a Ray Train worker group; every epoch is reported, also those of earlier attempts."""
    ear.tell.remote(name, {})
    epochs: list[dict[str, float]] = []

    def report(metrics: Mapping[str, float]) -> None:
        epochs.append(dict(metrics))
        ear.tell.remote(name, epochs[-1])

    group = WorkerGroup(task.workers, resources, scratch=scratch)
    try:
        group.train(task, report=report)
    finally:
        group.close()
    return epochs[-1]
