"""Faults: trials that hang, leak, diverge, or lose their images."""

from __future__ import annotations

import os
import signal

from tests.faults.case import ACTOR, Case, kill
from tests.faults.cluster import WORKERS
from tests.faults.inside.sitecustomize import LEAK, POISON, name_of

_HANGS_AFTER_S = 40


def hang(case: Case) -> None:
    """A stopped process answers nobody, not even Ray."""
    case.begin(f"resources.hang_timeout={_HANGS_AFTER_S}s", epochs=(4, 25))
    before = case.search.epochs()
    _, pid = case.choose(ACTOR)
    case.strike(lambda: os.kill(pid, signal.SIGSTOP))
    try:
        case.end()
    finally:
        kill(pid)
    failed = [number for number, cause in case.search.failures().items() if cause == "hung" and number in before]
    if len(failed) == 1:
        case.expected.failed = {failed[0]: "hung"}
    else:
        case.notes.append(f"trials {failed} failed as hung, expected one")


def leak(case: Case) -> None:
    """The kernel ends a process that outgrows what its control group may have."""
    case.begin()
    host, pid = case.choose(ACTOR)
    order = case.cluster.orders / name_of(host.name, host.number_inside(pid))
    with case.cluster.memory_limit(pid, mib=400):
        case.strike(lambda: order.write_text(LEAK))
        case.expected.lost = 1
        case.end()


def nan(case: Case) -> None:
    """The weights of one trial become NaN while it trains."""
    case.begin()
    before = case.search.epochs()
    host, pid = case.choose(ACTOR)
    case.strike(lambda: (case.cluster.orders / name_of(host.name, host.number_inside(pid))).write_text(POISON))
    case.end()
    failed = [number for number, cause in case.search.failures().items() if cause == "DivergedError"]
    if len(failed) == 1:
        case.expected.failed = {failed[0]: "DivergedError"}
    else:
        case.notes.append(f"one trial was to diverge, {failed or 'none'} did, of {sorted(before)}")


def loader(case: Case) -> None:
    """The decoded images that a node has mapped into memory are cut short: touching them is fatal (SIGBUS)."""
    case.begin()
    host, _ = case.choose(ACTOR, hosts=WORKERS)
    files = list(case.cluster.cache(host.name).rglob("images.u8"))
    assert files, "the images of this search are not kept"

    def cut_short() -> None:
        for file in files:
            os.truncate(file, 4096)

    case.expected.lost = int(case.trains_on(host.name))  # one that has not may find the images as they were, or none
    case.strike(cut_short)
    case.end()
