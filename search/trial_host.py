"""How do many trials train in one process? A host holds a device and trains what it is given, fused where it can.

To Ray Tune each trial stays a trial of its own, in a light actor that asks for next to nothing: it has a host train the
trial, forwards the reports, and takes Tune's decisions back. So search, scheduler and study know nothing of hosts.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.tune import Callback
from ray.tune.experiment import Trial

from search.cluster_nodes import worker_resources
from search.cluster_state import read_cluster, start_here
from search.launch import TrialTask, breaks_the_process
from search.resources_config import ResourcesConfig
from search.trial_place import leave_place, require_place
from trainables.errors import CrowdedError, OutOfMemoryError
from trainables.fused import Candidate, Outcome, train_fused
from trainables.memory import is_out_of_memory
from trainables.runtime import LocalRuntime, MetricValue, StopTrial

_log = logging.getLogger(__name__)

# How often a trial that has no slot yet asks again: at first, and at last.
_ASK_EVERY_S, _ASK_AT_LEAST_EVERY_S = 0.05, 1.0
# One that has not asked for so long does not wait for a slot.
_ASKS_WITHIN_S = 30.0

# A trial's actor waits for its reports, and takes the last one at once; then Ray sends it off.
_HEARD_WITHIN_S = 5.0
_REPLY_TAKES_S = 0.5

Metrics = Mapping[str, Any]
Message = Metrics | Exception | None


@dataclass(eq=False)
class _Desk:
    """Where a trial on a host and its light actor meet.

    Attributes:
        messages: its reports, and at the end None or the error.
        verdicts: whether it goes on, one for each report.
    """

    messages: queue.SimpleQueue[Message] = field(default_factory=queue.SimpleQueue)
    verdicts: queue.SimpleQueue[bool] = field(default_factory=queue.SimpleQueue)


class _HostedRuntime(LocalRuntime):
    """One trial of a host; its decisions are waited for when all trials of a round have reported."""

    def __init__(self, task: TrialTask, desk: _Desk) -> None:
        # Which imports Ray Train, and the driver imports this module.
        from trainables.ray_runtime import assigned_device

        super().__init__(trial_dir=Path(task.trial_dir), device=assigned_device(), num_threads=task.num_threads)
        self.desk = desk
        self._undecided = 0

    def report(self, metrics: Mapping[str, MetricValue], *, last: bool) -> None:
        self.desk.messages.put({**metrics, "done": last})
        self._undecided += 1

    def settle(self) -> None:
        while self._undecided:
            self._undecided -= 1
            if not self.desk.verdicts.get():
                raise StopTrial


class TrialHost:
    """The process that holds a device; an actor with as many threads as trials wait for something, and some more."""

    def __init__(self, num_slots: int) -> None:
        self._num_slots = num_slots
        self._desks: dict[str, _Desk] = {}
        self._tasks: queue.SimpleQueue[tuple[TrialTask, str]] = queue.SimpleQueue()
        self._at_hand: list[tuple[TrialTask, str]] = []
        threading.Thread(target=self._train_for_ever, daemon=True).start()

    def submit(self, task: TrialTask, attempt: str) -> None:
        """Has a trial trained, from its checkpoint if there is one.

        Args:
            attempt: a name that no other attempt at any trial has.
        """
        require_place(task)
        self._desks[attempt] = _Desk()
        self._tasks.put((task, attempt))

    def heard(self, attempt: str) -> Message:
        """The trial's next report, or how it ended: None, or its error."""
        message = self._desks[attempt].messages.get()
        if message is None or isinstance(message, Exception):
            self._desks.pop(attempt, None)
        return message

    def judge(self, attempt: str, *, go_on: bool) -> None:
        """Answers the trial's last report; of one that ends nobody hears any more."""
        desk = self._desks.get(attempt) if go_on else self._desks.pop(attempt, None)
        if desk is not None:
            desk.verdicts.put(go_on)

    def _train_for_ever(self) -> None:
        while True:
            self._at_hand.append(self._tasks.get())
            try:
                train_fused(self._next_trial, num_slots=self._num_slots, on_end=self._on_end)
            except Exception:  # of no trial: whoever waits learns of it by the end of this process
                os._exit(1)

    def _next_trial(self) -> Candidate | None:
        try:
            task, attempt = self._at_hand.pop() if self._at_hand else self._tasks.get_nowait()
        except queue.Empty:
            return None
        return Candidate(task.config, _HostedRuntime(task, self._desks[attempt]))

    def _on_end(self, outcome: Outcome) -> None:
        runtime = outcome.candidate.runtime
        assert isinstance(runtime, _HostedRuntime) and runtime.trial_dir is not None
        leave_place(runtime.trial_dir)
        breaks = outcome.error is not None and breaks_the_process(outcome.error)
        if breaks and len(self._desks) > 1:  # whose fault it was is not known: all lose their worker, and go on
            _log.error("%d trials lose their process", len(self._desks), exc_info=outcome.error)
            os._exit(1)
        runtime.desk.messages.put(outcome.error)
        if breaks:
            self._wait_until_heard(runtime.desk)
            os._exit(1)

    def _wait_until_heard(self, desk: _Desk) -> None:
        """What ended a trial would be lost with this process, and the trial tried again."""
        give_up_at = time.monotonic() + _HEARD_WITHIN_S
        while desk in self._desks.copy().values() and time.monotonic() < give_up_at:
            time.sleep(_ASK_EVERY_S)
        time.sleep(_REPLY_TAKES_S)


@dataclass
class _Seats:
    """A host, and who sits there.

    Attributes:
        most: how many trials it takes.
        attempts: by trial number.
        kinds: of the trials, by number.
        begun: is there once the host runs; until then it waits for resources.
        begun_at: when that was first seen, by `time.monotonic`.
    """

    host: Any
    most: int
    begun: Any
    attempts: dict[int, str] = field(default_factory=dict)
    kinds: dict[int, str] = field(default_factory=dict)
    begun_at: float | None = None


class HostPool:
    """Which host trains which trial? One host a device; a new one while a device has none. An actor."""

    def __init__(self, resources: ResourcesConfig) -> None:
        self._resources = resources
        self._hosts: list[_Seats] = []
        self._asked_at: dict[int, float] = {}
        self._crowded_out: set[int] = set()

    def acquire(self, number: int, kind: str) -> tuple[Any, str] | None:
        """A host with a free slot for a trial, and the name of this attempt at it; None while there is no slot.

        Args:
            kind: trials of the same kind may be fused, so they are brought together.
        """
        self._asked_at[number] = time.monotonic()
        open_hosts = [each for each in self._hosts if len(each.kinds) < each.most]
        no_host_idles = all(each.kinds for each in self._hosts)
        if no_host_idles and len(self._hosts) < max(1, read_cluster().slots(worker_resources(self._resources))):
            open_hosts = [self._new_host()]
        if not open_hosts:
            return None
        chosen = max(open_hosts, key=lambda each: (list(each.kinds.values()).count(kind), -len(each.kinds)))
        chosen.kinds[number], chosen.attempts[number] = kind, uuid.uuid4().hex
        return chosen.host, chosen.attempts[number]

    def end(self, number: int) -> None:
        """Ends a trial at its last report, and frees its slot, if it has one."""
        for each in [each for each in self._hosts if number in each.kinds]:
            each.host.judge.remote(each.attempts.pop(number), go_on=False)
            del each.kinds[number]

    def seated_s(self, number: int) -> float | None:
        """For how many seconds a trial has been with a host that runs; None while it waits for one."""
        now = time.monotonic()
        for each in [each for each in self._hosts if number in each.kinds]:
            if each.begun_at is None and ray.wait([each.begun], timeout=0)[0]:
                each.begun_at = now
            return None if each.begun_at is None else now - max(each.begun_at, self._asked_at[number])
        asked_s = now - self._asked_at.get(number, -math.inf)
        return None if asked_s < _ASKS_WITHIN_S else asked_s

    def crowded(self, number: int, slots: int, *, alone: bool) -> bool:
        """The host of a trial has no memory for as many as it had, and takes no more than so many from now on.

        Args:
            alone: whether this trial alone had too little. If it comes so again, it is the trial that is too large.

        Returns:
            Whether the trial is to be tried again.
        """
        if alone and number in self._crowded_out:
            return False
        if alone:
            self._crowded_out.add(number)
        for each in [each for each in self._hosts if number in each.kinds]:
            each.most = min(each.most, slots)
        return True

    def too_large(self, number: int) -> None:
        """It was the trial, then: its host takes as many as ever."""
        for each in [each for each in self._hosts if number in each.kinds]:
            each.most = self._resources.trials_per_device

    def lose(self, number: int) -> None:
        """Ends the host of a trial: it died, hangs, or reports to nobody. Its other trials go on elsewhere."""
        for each in [each for each in self._hosts if number in each.kinds]:
            self._hosts.remove(each)
            ray.kill(each.host)

    def _new_host(self) -> _Seats:
        needs, slots = worker_resources(self._resources), self._resources.trials_per_device
        options = {"num_cpus": needs.pop("CPU", 0), "num_gpus": needs.pop("GPU", 0), "resources": needs}
        # Every trial has a call that waits; submissions and verdicts are answered beside these.
        remote = ray.remote(TrialHost).options(max_concurrency=2 * slots + 4, **options)
        host = remote.remote(slots)
        self._hosts.append(_Seats(host, most=slots, begun=host.__ray_ready__.remote()))
        return self._hosts[-1]


class EndsOnHosts(Callback):  # type: ignore[misc]
    """Tells the pool how trials end. Tune stops one without a word to its actor, which learns of it with its next."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        del iteration, trials, info
        self._pool.end.remote(int(trial.config["number"]))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        del iteration, trials, info
        self._pool.lose.remote(int(trial.config["number"]))

    def __getstate__(self) -> dict[str, Any]:
        return {}  # pickled with the Tuner and never read back


def start_pool(resources: ResourcesConfig) -> Any:
    """The pool of a search; its hosts end with it."""
    return start_here(HostPool, resources)


def train_on_host(task: TrialTask, pool: Any, *, report: Callable[[Metrics], None]) -> None:
    """Has a host train a trial.

    Args:
        report: is called with every epoch's metrics. If it does not return, `HostPool.end` ends the trial.

    Raises:
        RayActorError: if the host is lost; the trial can go on from its checkpoint on another.
        Exception: the trial's own error.
    """
    pause_s = _ASK_EVERY_S
    while (place := ray.get(pool.acquire.remote(task.number, task.kind))) is None:
        time.sleep(pause_s)
        pause_s = min(_ASK_AT_LEAST_EVERY_S, 1.5 * pause_s)
    host, attempt = place
    try:
        ray.get(host.submit.remote(task, attempt))
        while (heard := ray.get(host.heard.remote(attempt))) is not None:
            if isinstance(heard, CrowdedError):
                if ray.get(pool.crowded.remote(task.number, heard.slots, alone=bool(heard.own))):
                    raise heard
                heard = OutOfMemoryError(heard.own)
            if isinstance(heard, Exception):
                if is_out_of_memory(heard):
                    ray.get(pool.too_large.remote(task.number))
                raise heard
            report(heard)
            host.judge.remote(attempt, go_on=True)
    except ray.exceptions.RayActorError:
        ray.get(pool.lose.remote(task.number))
        raise
