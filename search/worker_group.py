"""How do trials with several workers train without a new worker group for each? One group takes trial after trial.

Forming a Ray Train group starts half a dozen processes, which import torch, and takes many times as long as a short
trial. Here Ray Train forms a group once; its training function takes trials from a mailbox until it is told to end. A
group that lost a worker is over, and the next trial forms a new one.
"""

from __future__ import annotations

import asyncio
import os
import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray

from search.cluster_nodes import worker_resources
from search.interruptions import NodeTakenBackError, interruption_of
from search.launch import TrialTask
from search.resources_config import ResourcesConfig
from search.restarts import Kind
from search.trial_place import at_its_place
from trainables.errors import DivergedError
from trainables.runtime import StopTrial

_STRATEGIES = {"packed": "PACK", "spread": "SPREAD"}

# How often Ray Train looks for dead workers. By default every 2 s, which is how late a trial would learn of a loss.
_HEALTH_CHECK_S = "0.5"

# How often whoever waits for a report looks whether there still is a group.
_LOOK_EVERY_S = 1.0
# A group that takes longer to form perhaps waits for what one holds whose driver is gone.
_LOOKS_UNTIL_ORPHANS = 10

# How long a group that is closed may take; one that hangs is left to whoever ends its driver.
_CLOSE_S = 60.0

Metrics = Mapping[str, Any]


class Mailbox:
    """What the driver of a group and its workers tell each other; an actor without any resources."""

    def __init__(self) -> None:
        self._tasks: list[TrialTask | None] = []
        self._changed = asyncio.Condition()
        self._messages: asyncio.Queue[Metrics | BaseException | None] = asyncio.Queue()
        self._verdicts: asyncio.Queue[bool] = asyncio.Queue()
        self._nodes: set[str] = set()

    async def joined(self, node: str) -> None:
        """A worker has begun on a node."""
        self._nodes.add(node)

    async def nodes(self) -> set[str]:
        """Where the workers are, or were."""
        return self._nodes

    async def give(self, task: TrialTask | None) -> None:
        """The next trial; None ends the group."""
        async with self._changed:
            self._tasks.append(task)
            self._changed.notify_all()

    async def take(self, index: int) -> TrialTask | None:
        """Trial number `index` of this group, for one of its workers; waits until there is one."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._tasks) > index)
            return self._tasks[index]

    async def report(self, metrics: Metrics) -> bool:
        """An epoch's metrics; whether the trial goes on, once that is decided."""
        self._messages.put_nowait(metrics)
        return await self._verdicts.get()

    async def end(self, error: BaseException | None) -> None:
        """The trial is over: at its end, or by an error that the group survives."""
        self._messages.put_nowait(error)

    async def heard(self) -> Metrics | BaseException | None:
        """The next report, or how the trial ended."""
        return await self._messages.get()

    async def judge(self, *, go_on: bool) -> None:
        """Answers the last report."""
        self._verdicts.put_nowait(go_on)


class WorkerGroup:
    """A Ray Train worker group that trains one trial after the other. The process that made it is its driver.

    Args:
        scratch: folder for Ray Train's own bookkeeping; what a resume needs is written by `train`.
    """

    def __init__(self, workers: int, resources: ResourcesConfig, *, scratch: str) -> None:
        from search.cluster_state import start_here

        self.workers = workers
        # So that it does not outlive the driver there, either.
        self._mailbox: Any = start_here(Mailbox)
        self._error: BaseException | None = None
        self._has_formed = False
        self._thread = threading.Thread(target=self._fit, args=(resources, scratch), daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether it can train no more."""
        return not self._thread.is_alive()

    def train(self, task: TrialTask, *, report: Callable[[Metrics], None]) -> None:
        """Trains one trial.

        Args:
            report: is called with every epoch's metrics. If it raises, even `SystemExit`, the trial ends there and the
                group takes the next.

        Raises:
            DivergedError: if the trial diverged; the group goes on.
            Exception: what Ray Train raises where a worker is lost or fails; then the group is over.
        """
        try:
            self._train(task, report)
        except ray.exceptions.RayActorError:
            # If it was the mailbox that died, the workers learn of it at their next report; before that they may write.
            self._thread.join()
            raise

    def _train(self, task: TrialTask, report: Callable[[Metrics], None]) -> None:
        ray.get(self._mailbox.give.remote(task))
        while True:
            heard = self._wait_for(self._mailbox.heard.remote())
            if heard is None:
                return
            if isinstance(heard, BaseException):
                raise heard
            go_on = False
            try:
                report(heard)
                go_on = True
            finally:
                self._mailbox.judge.remote(go_on=go_on)

    def close(self) -> None:
        """Ends the group once its workers are between trials, and waits until its resources are free."""
        if not self.is_over:
            self._mailbox.give.remote(None)
            self._thread.join(_CLOSE_S)
        ray.kill(self._mailbox)

    def _wait_for(self, message: Any) -> Any:
        looks = 0
        while not ray.wait([message], timeout=_LOOK_EVERY_S)[0]:
            self._look_for_leaving_nodes()
            if self.is_over:
                raise self._why_over()
            looks += 1
            if not self._has_formed and looks % _LOOKS_UNTIL_ORPHANS == 0:
                self._free_orphans()
        self._has_formed = True
        return ray.get(message)

    def _look_for_leaving_nodes(self) -> None:
        from search.cluster_state import leaving_nodes

        with suppress(Exception):  # whatever is wrong with Ray is noticed by those that need it for more
            leaving_nodes()

    def _why_over(self) -> BaseException:
        """Ray Train's error; or that a node was taken back, where Ray Train saw only what the other workers said of it.

        It looks twice a second: these may have noticed the loss, and Ray not yet.
        """
        from search.cluster_state import have_left

        error = self._error or RuntimeError("the worker group ended before its trial")
        lost = interruption_of(error, in_group=True)
        if lost is None or lost.kind is not Kind.LOST or not have_left(ray.get(self._mailbox.nodes.remote())):
            return error
        return NodeTakenBackError(lost.message)

    def _free_orphans(self) -> None:
        from search.group_starts import free_orphans

        free_orphans()

    def _fit(self, resources: ResourcesConfig, scratch: str) -> None:
        import ray.train
        from ray.train.torch import TorchTrainer

        from search.group_network import GroupTorchConfig
        from search.group_starts import FreesFailedStarts

        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", _HEALTH_CHECK_S)
        trainer = TorchTrainer(
            serve_trials,
            train_loop_config={"mailbox": self._mailbox},
            torch_config=GroupTorchConfig(),
            scaling_config=ray.train.ScalingConfig(
                num_workers=self.workers,
                use_gpu=resources.gpus_per_worker > 0,
                resources_per_worker=worker_resources(resources),
                placement_strategy=_STRATEGIES[resources.placement],
            ),
            run_config=ray.train.RunConfig(
                name=f"group-{uuid.uuid4().hex[:12]}",
                storage_path=scratch,
                callbacks=[FreesFailedStarts(self._mailbox._actor_id.hex())],
                # Whoever asked for the group hears of every loss, counts it, and asks again.
                failure_config=ray.train.FailureConfig(max_failures=0, max_preemption_failures=0),
            ),
        )
        try:
            trainer.fit()
        except BaseException as error:
            self._error = error


def serve_trials(config: Mapping[str, Any]) -> None:
    """One worker of a group: trains what the mailbox has, until it says that this was all."""
    from trainables.ray_runtime import GroupRuntime
    from trainables.train import train

    mailbox, index = config["mailbox"], 0
    mailbox.joined.remote(ray.get_runtime_context().get_node_id())
    while (task := ray.get(mailbox.take.remote(index))) is not None:
        index += 1
        runtime = GroupRuntime(
            trial_dir=Path(task.trial_dir),
            num_threads=task.num_threads,
            decide=lambda metrics: bool(ray.get(mailbox.report.remote(metrics))),
        )
        outcome: DivergedError | None = None
        try:
            with at_its_place(task):
                train(task.config, runtime)
        except StopTrial:
            continue
        except DivergedError as error:  # of sums over all workers, so that all of them are here
            outcome = error
        if runtime.rank == 0:
            ray.get(mailbox.end.remote(outcome))
