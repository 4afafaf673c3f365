"""How often did a trial lose its worker, and does it go on? A lost worker is no failure of the trial."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Kind(StrEnum):
    """What ended a trial's process."""

    DISTURBED = "disturbed"  # by a trial that shares its device
    LOST = "worker lost"  # killed, crashed, or its node is gone
    PREEMPTED = "preempted"  # its node was taken back with notice
    MEMORY = "killed: out of memory"  # by Ray's memory monitor
    HUNG = "hung"  # by us, since it had reported nothing for too long
    STORAGE = "results folder"  # or images: gone, full, read-only, or others; no trial is to blame
    BROKEN = "worker died"  # of an error that it could not report


@dataclass(frozen=True)
class Interruption:
    """What ended a trial's process, and what was said about it."""

    kind: Kind
    message: str

    @property
    def may_go_on(self) -> bool:
        """Whether the trial may be none the worse for it."""
        return self.kind in (Kind.LOST, Kind.PREEMPTED, Kind.MEMORY, Kind.DISTURBED)


@dataclass(frozen=True)
class Restarts:
    """How often a trial went on from its checkpoint after its worker was lost.

    Attributes:
        lost: after losses, preemptions excepted.
        preempted: after preemptions of its node.
        in_a_row: losses since it last finished an epoch.
        epoch: that it had finished by the last loss.
    """

    lost: int = 0
    preempted: int = 0
    in_a_row: int = 0
    epoch: int = 0

    @property
    def words(self) -> str:
        """What a person is told; empty where there was none."""
        causes = ((self.lost, "after a lost worker"), (self.preempted, "after a preemption"))
        told = ", ".join(f"{count} {cause}" for count, cause in causes if count)
        return f"restarted: {told}" if told else ""

    def __add__(self, other: Restarts) -> Restarts:
        """Those of two trials together."""
        return Restarts(lost=self.lost + other.lost, preempted=self.preempted + other.preempted)

    def after(self, kind: Kind, *, epoch: int) -> Restarts:
        """The same with one more, at a trial that has finished so many epochs."""
        if kind is Kind.PREEMPTED:
            return replace(self, preempted=self.preempted + 1)
        if kind is Kind.DISTURBED:  # which has an end: that trial fails, or this one is alone at last
            return replace(self, lost=self.lost + 1)
        in_a_row = 1 if epoch > self.epoch else self.in_a_row + 1
        return replace(self, lost=self.lost + 1, in_a_row=in_a_row, epoch=epoch)
