"""Was the winner lucky? The best trials are trained again with other seeds, and the winner on all images but the test.

Stage 1: each candidate is trained anew on the training split with seeds of its own; the mean of their validation scores
picks the winner. A search picks the luckiest of many, whose score is therefore optimistic; these scores are not.

Stage 2: the winner is trained on training and validation images together, with the same seeds. Nothing is left to pick
an epoch by, so it ends after as many epochs as were best in stage 1 on average, on the same learning-rate schedule.

What has been trained is kept in `final/`, and is not repeated after an interruption.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import ray

from search.cluster_nodes import worker_resources
from search.cluster_state import read_cluster
from search.config import SearchConfig
from search.halt import Halt
from search.interruptions import interruption_of
from search.launch import TrialTask, cause_of, interruption_of_files, message_of, root_cause
from search.ledger import TrialRecord, rank
from search.resources_config import ResourcesConfig
from search.restarts import Kind, Restarts
from search.results import RunPaths
from search.trial_place import recorded_fingerprint
from search.worker_group import WorkerGroup
from trainables.checkpoint import TrialFiles, newest_epoch
from trainables.config import TrialConfig
from trainables.errors import VistuneError
from trainables.metric_names import METRIC_MODES
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


@dataclass(frozen=True)
class Final:
    """What the retrainings found.

    Attributes:
        stage1: all that succeeded, by candidate in the order of the search's ranking.
        models: of the winner, those that the test is for; the first is the one that is exported.
        failures: what failed, in words.
    """

    winner: TrialRecord
    stage1: tuple[Retrained, ...]
    models: tuple[Retrained, ...]
    refit_epochs: int | None
    failures: tuple[str, ...]

    def scores(self, trial: int) -> list[float]:
        """Validation scores of a candidate in stage 1."""
        return [each.score for each in self.stage1 if each.trial == trial and each.score is not None]


class Interrupted(Exception):  # noqa: N818
    """A person asked for the end while the best trials were trained again."""


def retrain_best(
    config: SearchConfig,
    paths: RunPaths,
    records: Sequence[TrialRecord],
    *,
    halt: Halt,
    note: Callable[[str], None],
) -> Final | None:
    """Both stages, on the resources of the trials.

    Args:
        note: is told how far it has come.

    Returns:
        None where no candidate could be trained again.

    Raises:
        Interrupted: when `halt` is; what was finished by then stays.
    """
    metric = config.metric
    usable = [record for record in records if record.is_usable]
    candidates = rank(usable, metric=metric)[: config.final.top_k]
    seeds = [config.sampler.seed + 1 + index for index in range(config.final.seeds)]
    runner = _Runner(config, paths, halt=halt, note=note)
    asked = {
        (record.number, seed): config.trial_config(record.params).model_copy(update={"seed": seed})
        for record in candidates
        for seed in seeds
    }
    stage1 = runner.train(asked, title="training the best trials again")
    winner = _winner(candidates, stage1, metric=metric)
    if winner is None:
        return None
    own = [each for each in stage1 if each.trial == winner.number]
    trial = config.trial_config(winner.params)
    models, refit_epochs = own, None
    if trial.lr_schedule != "plateau":  # which follows the validation loss
        refit_epochs = max(1, round(mean(each.best_epoch for each in own)))
        update = {"refit_epochs": refit_epochs}
        refits = {(winner.number, seed): trial.model_copy(update={"seed": seed, **update}) for seed in seeds}
        models = runner.train(refits, title="training the winner on all images but the test") or own
    return Final(
        winner=winner,
        stage1=tuple(stage1),
        models=tuple(models),
        refit_epochs=refit_epochs if models is not own else None,
        failures=tuple(runner.failures),
    )


def _winner(candidates: Sequence[TrialRecord], stage1: Sequence[Retrained], *, metric: str) -> TrialRecord | None:
    """The candidate with the best mean; of equal ones that which the search ranked first."""
    sign = 1.0 if METRIC_MODES[metric] == "max" else -1.0
    means = {
        record.number: mean(scores)
        for record in candidates
        if (scores := [each.score for each in stage1 if each.trial == record.number and each.score is not None])
    }
    tried = [record for record in candidates if record.number in means]
    return max(tried, key=lambda record: sign * means[record.number], default=None)


class _Runner:
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
        """Trains each configuration, keyed by trial number and seed; those that fail are left out, and said."""
        ahead = deque(trials.items())
        waiting: dict[Any, tuple[tuple[int, int], TrialConfig]] = {}
        found: dict[tuple[int, int], Retrained] = {}
        most = self._resources.max_concurrent_trials or self._at_a_time(len(trials))
        while ahead or waiting:
            while ahead and len(waiting) < most:
                key, trial = ahead.popleft()
                waiting[self._start(key, trial)] = (key, trial)
            self._note(f"{title}: {len(trials) - len(ahead) - len(waiting)} of {len(trials)}")
            done, _ = ray.wait(list(waiting), timeout=1.0)
            if self._halt.interrupted:
                for task in waiting:
                    ray.cancel(task, force=True)
                raise Interrupted
            for task in done:
                key, trial = waiting.pop(task)
                try:
                    found[key] = self._result(task, key, trial)
                except (ray.exceptions.RayError, VistuneError) as error:
                    if self._goes_on(error, key, trial):
                        waiting[self._start(key, trial)] = (key, trial)
                    else:
                        self._note_failure(error, key)
        return [found[key] for key in trials if key in found]

    def _at_a_time(self, count: int) -> int:
        """Of groups no more than fit and one, for which a cluster may grow; what waits of them holds actors already."""
        if not self._resources.has_groups:
            return count
        return read_cluster().slots(worker_resources(self._resources)) // 2 + 1

    def _start(self, key: tuple[int, int], trial: TrialConfig) -> Any:
        task = TrialTask(
            number=key[0],
            trial_dir=str(self._folder(key, trial)),
            trial=trial.model_dump(mode="json"),
            num_threads=self._resources.num_threads,
            workers=self._resources.workers_of(trial.arch),
            fingerprint=self._fingerprint,
        )
        needs = worker_resources(self._resources)
        if task.workers > 1:  # the group has its own; its driver asks for a token of memory only
            remote = ray.remote(_train_on_group).options(num_cpus=0, max_retries=0)
            return remote.remote(task, self._resources, str(self._paths.tune))
        # Given to `remote`, not to `options`: only then Ray ends the process of a task that had a GPU.
        asks = {"num_cpus": needs.pop("CPU", 0), "num_gpus": needs.pop("GPU", 0), "resources": needs}
        return ray.remote(max_retries=0, **asks)(_train_here).remote(task)

    def _folder(self, key: tuple[int, int], trial: TrialConfig) -> Path:
        number, seed = key
        # Where a later session retries a seed that failed, the epochs of the refits may become others.
        stage = "validated" if trial.refit_epochs is None else f"refitted{trial.refit_epochs}"
        return self._paths.final / f"{number:04d}-{stage}-seed{seed}"

    def _goes_on(self, error: Exception, key: tuple[int, int], trial: TrialConfig) -> bool:
        """Whether a training that has lost its worker is to go on from its checkpoint, as a trial of the search is.

        Raises:
            Interrupted: if the results folder cannot be written.
        """
        in_group = self._resources.workers_of(trial.arch) > 1
        lost = interruption_of_files(root_cause(error)) or interruption_of(error, in_group=in_group)
        if lost is None:
            return False
        if lost.kind is Kind.STORAGE:
            self._halt.because(lost.message, interrupted=True)
            raise Interrupted
        folder = self._folder(key, trial)
        saved = newest_epoch(TrialFiles(folder))
        restarts = self._restarts.get(folder, Restarts()).after(lost.kind, epoch=saved)
        self._restarts[folder] = restarts
        if not lost.may_go_on or restarts.in_a_row > self._resources.retries:
            return False
        _log.warning("%s, epoch %d: %s, goes on: %s", folder.name, saved, lost.kind.value, lost.message)
        return True

    def _note_failure(self, error: Exception, key: tuple[int, int]) -> None:
        number, seed = key
        root = root_cause(error)
        self.failures.append(f"trial {number}, seed {seed}: {cause_of(root)}: {message_of(root)}")
        _log.warning("retraining failed: %s", self.failures[-1])

    def _result(self, task: Any, key: tuple[int, int], trial: TrialConfig) -> Retrained:
        number, seed = key
        metrics: dict[str, float] = ray.get(task)
        # The last checkpoint says that this is done, and how it went; it holds no weights any more.
        remove(TrialFiles(self._folder(key, trial)).previous_checkpoint)
        return Retrained(
            trial=number,
            seed=seed,
            folder=self._folder(key, trial),
            score=metrics.get("score"),
            best_epoch=int(metrics["best_epoch"]),
        )


def _train_here(task: TrialTask) -> dict[str, float]:
    """Trains on the resources that Ray gave this task."""
    from search.trial_place import require_place
    from trainables.runtime import LocalRuntime
    from trainables.train import train

    require_place(task)
    device = "cuda" if ray.get_gpu_ids() else "cpu"
    runtime = LocalRuntime(trial_dir=Path(task.trial_dir), device=device, num_threads=task.num_threads)
    return train(task.config, runtime)


def _train_on_group(task: TrialTask, resources: ResourcesConfig, scratch: str) -> dict[str, float]:
    """Trains on a Ray Train worker group; its last epoch is read from the file that rank 0 leaves."""
    import torch

    from trainables.checkpoint import TrialFiles, load_checkpoint

    group = WorkerGroup(task.workers, resources, scratch=scratch)
    try:
        group.train(task, report=lambda _: None)
    finally:
        group.close()
    state = load_checkpoint(TrialFiles(Path(task.trial_dir)).checkpoint, device=torch.device("cpu"))
    assert state is not None, "train saves before it returns"
    last: dict[str, float] = state["history"][-1]
    return last
