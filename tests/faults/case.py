"""One fault in one search: when it strikes, how long it takes to recover from, and what is expected of the end."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tests.faults.cluster import WORKERS, Cluster
from tests.faults.hosts import Host
from tests.faults.search import Search, Session
from tests.search.cli import wait_until

# What trains, as the titles of its processes have it.
ACTOR, GROUP_WORKER, CONTROLLER = "ray::ImplicitFunc", "ray::RayTrainWorker", "ray::TrainController"
DRIVER = "search.run"
# Epochs of a trial that the study may not know yet when a fault strikes.
_UNDER_WAY = 1
_ENDS_WITHIN_S = 420.0
_BEGINS_WITHIN_S = 240.0


@dataclass
class Expected:
    """What a fault may leave behind.

    Attributes:
        failed: causes of the trials that it costs, by number; all others have to finish as without it.
        again: epochs that may be trained a second time.
        lost, preempted: restarts, at least; of the one kind none where the other is expected alone.
    """

    failed: dict[int, str] = field(default_factory=dict)
    again: int = 0
    lost: int = 0
    preempted: int = 0


class Case:
    """A search on the cluster, and the moments of its fault.

    Args:
        space: name of the search's space.
        name: of the run.
        stored: whether the run lies in the object store, and nodes share no files of it.
    """

    def __init__(self, cluster: Cluster, *, space: str, name: str, seed: int, stored: bool = False) -> None:
        self.cluster = cluster
        self.space = space
        self.stored = stored
        self.search = Search(cluster, name, space=space, stored=stored)
        self.moments = random.Random(f"{name}-{seed}")
        self.expected = Expected()
        self.overrides: tuple[str, ...] = ()
        self.finished_before: dict[tuple[object, ...], object] = {}
        self.recovered_s: float | None = None
        self.notes: list[str] = []
        self.moment = ""
        self._struck_at: float | None = None
        self._waits_for: dict[int, int] = {}

    def begin(self, *overrides: str, epochs: tuple[int, int] | None = None, of_trial: int | None = None) -> None:
        """Sends the search and waits for a moment that the seed draws.

        Args:
            epochs: how many epochs have been trained by then, at least and at most; drawn between.
            of_trial: that are counted; by default those of all.
        """
        self.overrides = overrides
        self.search.submit(*overrides)
        self.wait_for_moment(epochs, of_trial=of_trial)

    def wait_for_moment(self, epochs: tuple[int, int] | None = None, *, of_trial: int | None = None) -> None:
        # What the object store knows of a study is up to 10 s old.
        least, most = epochs or ((1, 6) if self.stored else (2, 40))
        wanted = self.moments.randint(least, most)

        def reached() -> bool:
            return self._epochs(of_trial) >= wanted or self.search.session().ended

        wait_until(reached, timeout_s=_BEGINS_WITHIN_S, every_s=0.3)
        assert not self.search.session().ended, "the search was over before the fault"
        time.sleep(self.moments.uniform(0, 1))

    def strike(self, action: Callable[[], object]) -> None:
        """Lets the fault happen. From here on counts what has to be kept, and how long recovery takes."""
        self.finished_before |= {
            params: (trial.state, trial.intermediate_values, trial.value)
            for params, trial in self.search.finished().items()
        }
        self._waits_for = self.search.epochs()
        self._struck_at = time.monotonic()
        self.moment = ", ".join(f"trial {number} at epoch {epoch}" for number, epoch in self._waits_for.items())
        action()

    def heal(self, action: Callable[[], object]) -> None:
        """Ends a fault that lasts, or what precedes it; from here on recovery counts."""
        action()
        self._waits_for = self.search.epochs()
        self._struck_at = time.monotonic()

    def end(self, *, within_s: float = _ENDS_WITHIN_S) -> Session:
        """Waits for the end of the session."""

        def over() -> bool:
            self._look()
            return self.search.session().ended

        wait_until(over, timeout_s=within_s, every_s=0.5)
        self._look()
        return self.search.session()

    def end_with_error(self, *needles: str, within_s: float = _ENDS_WITHIN_S) -> None:
        """Waits until the session gives up, and requires that it says why."""
        session = self.end(within_s=within_s)
        output = self.search.output(session)
        self.recovered_s = None
        told = any(needle in output for needle in needles) and "Traceback" not in output
        if session.status == "SUCCEEDED" or not told:
            last = "\n".join(output.strip().splitlines()[-8:])
            self.notes.append(f"ended {session.status} without a clear error: {last}")

    def resume(self) -> None:
        self.heal(self.search.resume)

    def processes(self, *titles: str, hosts: Sequence[str] = ()) -> list[tuple[Host, int]]:
        """Processes that train, with the hosts they are on; by default on any."""
        among = [self.cluster.hosts[name] for name in hosts] if hosts else list(self.cluster.hosts.values())
        return [(host, pid) for host in among for title in titles for pid in host.processes(named=title)]

    def choose(self, *titles: str, hosts: Sequence[str] = ()) -> tuple[Host, int]:
        """One of them, drawn by the seed; waits for the first."""
        found: list[tuple[Host, int]] = []

        def look() -> bool:  # once: between two looks all may have ended
            found[:] = self.processes(*titles, hosts=hosts)
            return bool(found)

        wait_until(look, timeout_s=60)
        return self.moments.choice(found)

    def trains_on(self, name: str) -> bool:
        """Whether a trial that has finished an epoch would be lost with a node; before that a group just forms anew."""
        begun = [number for number, epoch in self.search.epochs().items() if epoch > 0]
        if self.has_groups and 0 in begun and self.processes(GROUP_WORKER, hosts=[name]):
            return True
        return any(self.search.host_of(number) == name for number in begun)

    @property
    def has_groups(self) -> bool:
        """Whether the first trial is a group of two workers."""
        return "mixed" in self.space

    def busy_worker(self) -> str:
        """Name of a node, not the head, on which something trains."""
        return self.choose(ACTOR, GROUP_WORKER, hosts=WORKERS)[0].name

    def _epochs(self, of_trial: int | None) -> int:
        return sum(
            len(trial.intermediate_values)
            for trial in self.search.trials()
            if of_trial is None or trial.number == of_trial
        )

    def _look(self) -> None:
        """Notes when all trials that were in training have come two epochs further, or have ended."""
        if self._struck_at is None or self.recovered_s is not None:
            return
        now, known = self.search.epochs(), {trial.number for trial in self.search.trials()}
        if known >= self._waits_for.keys() and all(
            number not in now or now[number] > epoch + _UNDER_WAY for number, epoch in self._waits_for.items()
        ):
            self.recovered_s = time.monotonic() - self._struck_at


def kill(*pids: int) -> None:
    """`kill -9`."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
