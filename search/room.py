"""Which trials may run beside those that do? Counted in workers, and asked anew before every proposal."""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import Enum


class Fit(Enum):
    """Whether there is room for one more trial."""

    NOW = "now"
    AHEAD = "ahead"  # it may be prepared, and waits for the next actor that is free
    NO = "no"


class Room:
    """Counts workers: a cluster of so many slots holds any trials whose workers together are no more.

    All workers ask for the same, so a slot that one leaves is a slot for any other, on whatever node. One trial is
    always let in: where it does not fit it waits in Ray, which makes an autoscaler start nodes.

    Args:
        slots: how many workers the cluster holds now; asked for anew, since a cluster grows and shrinks.
        sizes: numbers of workers that a trial may have.
        most: trials at a time.
        ahead: whether one trial more is proposed than run. With the next trial at hand no actor waits for a proposal,
            which then knows one result less. Not with one trial at a time, whose search is to repeat exactly, nor with
            worker groups, whose drivers would all start, nor where `most` leaves slots free, in which it would start.
    """

    def __init__(
        self, slots: Callable[[], int], *, sizes: Collection[int] = (1,), most: int | None = None, ahead: bool = True
    ) -> None:
        self._slots = slots
        self._smallest = min(sizes)
        self._most = most
        self._ahead = ahead and max(sizes) == 1

    def fit(self, running: Collection[int], *, size: int | None = None) -> Fit:
        """Whether a trial fits beside those that run.

        Args:
            running: the numbers of workers of the trials that run or wait.
            size: that of the trial; by default of the smallest there may be.
        """
        slots = self._slots()
        most = slots if self._most is None else self._most
        if not running or (len(running) < most and sum(running) + (size or self._smallest) <= slots):
            return Fit.NOW
        is_full = len(running) == slots <= most
        return Fit.AHEAD if self._ahead and slots > 1 and is_full else Fit.NO
