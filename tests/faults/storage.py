"""Faults: the results folder is full, slow, read-only, away, damaged or taken."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from tests.faults.case import ACTOR, Case, kill
from trainables.checkpoint import TrialFiles

_AWAY_S = 30.0
_FULL = ("No space left", "disk is full")
_READ_ONLY = ("Read-only file system", "read-only")
_TAKEN = ("a run of this name exists", "another process is running this search")

# Holds the journal's own lock for as long as another program that works on the study might.
_HOLD = """
import sys, time
from optuna.storages.journal import JournalFileSymlinkLock
lock = JournalFileSymlinkLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(float(sys.argv[2]))
lock.release()
"""


def full(case: Case) -> None:
    _interrupted(case, case.cluster.disk.fill, mended_by=case.cluster.disk.empty, told=_FULL)


def read_only(case: Case) -> None:
    _interrupted(case, case.cluster.disk.fail, mended_by=case.cluster.disk.repair, told=_READ_ONLY)


def _interrupted(case: Case, fault: Callable[[], None], *, mended_by: Callable[[], None], told: Sequence[str]) -> None:
    """The search has to end and say why, and to go on once the disk is well."""
    case.begin()
    case.strike(fault)
    try:
        case.end_with_error(*told)
    finally:
        mended_by()
    case.resume()
    case.end()


def slow(case: Case) -> None:
    """For the rest of the search, a write waits up to a second."""
    case.begin()
    with case.cluster.disk.slow():
        case.strike(lambda: None)
        case.end()


def unreachable(case: Case) -> None:
    case.begin()
    case.strike(case.cluster.disk.freeze)
    time.sleep(_AWAY_S)
    case.heal(case.cluster.disk.thaw)
    case.end()


def truncated(case: Case) -> None:
    """Half of a checkpoint is lost with the process that wrote it."""
    case.begin()
    _, pid = case.choose(ACTOR)

    def cut_short() -> None:
        kill(pid)
        time.sleep(0.2)
        files = [TrialFiles(case.search.paths.trial(number)).checkpoint for number in case.search.epochs()]
        there = [file for file in files if file.is_file()]
        if not there:
            case.notes.append("there was no checkpoint to cut short")
        for file in there:
            size = file.stat().st_size
            with file.open("r+b") as opened:
                opened.truncate(size // 2)

    case.strike(cut_short)
    case.expected.lost = 1
    case.expected.again = 1
    case.end()


def locked(case: Case) -> None:
    case.begin()
    seconds = case.moments.uniform(10, 20)
    command = [sys.executable, "-c", _HOLD, str(case.search.paths.study), str(seconds)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE)

    def hold() -> None:
        assert holder.stdout is not None
        assert holder.stdout.readline(), "the lock was not taken"

    case.strike(hold)
    assert holder.wait() == 0
    case.heal(lambda: None)
    case.end()


def same_name(case: Case) -> None:
    """A second search of the name is sent twice: anew, and to go on with the first; neither may touch it."""
    case.begin()
    first = case.search.session()
    others = []
    for send in (lambda: case.search.submit(*case.overrides), case.search.resume):  # both while the first runs
        case.strike(send)
        others.append(case.search.session())
    assert first.job not in {other.job for other in others}
    for other in others:
        case.search.follow(other)
        case.end_with_error(*_TAKEN)
    case.search.follow(first)
    case.strike(lambda: None)
    case.end()
