"""Faults: nodes that go with notice, are cut off, or come."""

from __future__ import annotations

import time

from tests.cluster.head import ROOT
from tests.faults.case import Case
from tests.faults.checks import hosts_of
from tests.faults.cluster import SPARE, WORKERS
from tests.search.cli import wait_until

_NOTICE_S = 5
_DEATH_NOTICED_WITHIN_S = 90.0


def cut(case: Case) -> None:
    """Cut off until the cluster has given it up; then it comes back with what it was doing, and is started anew."""
    case.begin()
    name = case.busy_worker()
    host = case.cluster.hosts[name]
    case.expected.lost = int(case.trains_on(name))
    case.strike(host.cut)
    until = time.monotonic() + _DEATH_NOTICED_WITHIN_S
    while name in case.cluster.members() and time.monotonic() < until:
        time.sleep(1)
    time.sleep(case.moments.uniform(0, 10))
    host.reconnect()
    case.end()


def short_cut(case: Case) -> None:
    """Cut off for a few seconds, which nobody needs to notice."""
    case.begin()
    host = case.cluster.hosts[case.busy_worker()]
    case.strike(host.cut)
    time.sleep(case.moments.uniform(2, 6))
    case.heal(host.reconnect)
    case.end()


def added(case: Case) -> None:
    """To a cluster of two nodes, which more trials wait for than it holds."""
    away = WORKERS[1:]
    case.cluster.kill(*away)
    wait_until(lambda: not case.cluster.members().intersection(away))
    case.begin("resources.max_concurrent_trials=4", epochs=(0, 4))
    case.strike(lambda: case.cluster.start(SPARE))
    case.end()
    if SPARE not in hosts_of(case.search.paths):
        case.notes.append(f"nothing was trained on the added node, only on {sorted(hosts_of(case.search.paths))}")


def drain(case: Case) -> None:
    """A spot notice: the node says that it goes, and is gone when its time is over."""
    _taken_back(case, promised_s=_NOTICE_S)


def early_drain(case: Case) -> None:
    """The same, but it is gone long before its time is over."""
    _taken_back(case, promised_s=12 * _NOTICE_S)


def _taken_back(case: Case, *, promised_s: int) -> None:
    # Not late in a trial, which else ends before the node goes.
    case.begin(epochs=(2, 60), of_trial=0 if case.has_groups else None)
    name = case.busy_worker()

    def notice() -> None:
        case.cluster.run_on(name, "bash", ROOT / "cluster" / "drain_node.sh", str(promised_s))
        time.sleep(_NOTICE_S)  # programs of a host see their own children only, so the script did not wait for Ray

    case.strike(notice)
    case.expected.preempted = int(case.trains_on(name))
    case.heal(lambda: case.cluster.kill(name))
    case.end()
