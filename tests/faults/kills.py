"""Faults: `kill -9` of what trains and of what drives."""

from __future__ import annotations

import time

from tests.faults.case import ACTOR, CONTROLLER, DRIVER, GROUP_WORKER, Case, kill
from tests.faults.cluster import HEAD, WORKERS

_GROUP_EPOCHS = (1, 8)


def undisturbed(case: Case) -> None:
    case.begin()
    case.end()


def worker(case: Case) -> None:
    case.begin(epochs=_GROUP_EPOCHS, of_trial=0)
    case.strike(lambda: kill(case.choose(GROUP_WORKER)[1]))
    case.expected.lost = 1
    case.end()


def controller(case: Case) -> None:
    case.begin(epochs=_GROUP_EPOCHS, of_trial=0)
    case.strike(lambda: kill(case.choose(CONTROLLER)[1]))
    case.expected.lost = 1
    case.end()


def actor(case: Case) -> None:
    """Of a one-worker trial, or of a group, whose workers then have nobody to report to."""
    case.begin(epochs=_GROUP_EPOCHS, of_trial=0 if case.has_groups else None)
    case.strike(lambda: kill(case.choose(ACTOR)[1]))
    case.expected.lost = 1
    case.end()


def node(case: Case) -> None:
    case.begin()
    name = case.busy_worker()
    case.expected.lost = int(case.trains_on(name))
    case.strike(lambda: case.cluster.kill(name))
    case.end()


def two_nodes(case: Case) -> None:
    case.begin()
    first = case.busy_worker()
    second = case.moments.choice([name for name in WORKERS if name != first])
    case.expected.lost = int(case.trains_on(first) or case.trains_on(second))
    case.strike(lambda: case.cluster.kill(first, second))
    case.end()


def driver(case: Case) -> None:
    case.begin()
    case.strike(lambda: kill(*(pid for _, pid in case.processes(DRIVER, hosts=[HEAD]))))
    case.end()
    case.resume()
    case.end()


def head(case: Case) -> None:
    """What it took with it is started again at once, while trials of before may still be at work elsewhere."""
    case.begin()
    case.strike(lambda: case.cluster.kill(HEAD))
    if case.stored:
        case.cluster.lose_disk(HEAD)
    time.sleep(case.moments.uniform(0, 3))
    case.heal(lambda: case.cluster.start(HEAD, *WORKERS))
    case.resume()
    case.end()
