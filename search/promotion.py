"""Asynchronous successive halving, promotion form: trials pause at rungs, and the best go on when there is room."""

from __future__ import annotations

from search.asha import RungScheduler
from search.dominance import Losses, ranked
from search.ledger import Status, TrialRecord
from search.schedulers import Continue, Decision, Step


class PromotionScheduler(RungScheduler):
    """ASHA, promotion form: a rung with n trials sends its best floor(n / reduction_factor) on, from their checkpoints.

    Rungs are asked from the highest down, before any new trial is begun. Of equal scores the lower number is ahead. A
    trial that fails keeps counting towards n where it had arrived, and gives its place to the next best. When no new
    trial will come, each rung sends on at least one: however few the trials, one is trained in full.

    With several objectives the best are those that `search.dominance.ranked` puts first.

    Where a trial stands follows from its curve alone: one that ends at a rung waits there, a longer one was sent on.

    Source: Li et al., arXiv:1810.05934 (algorithm 2).
    """

    pauses = True

    def _set_up(self, epochs: list[int], *, reduction_factor: int) -> None:
        self.rungs: dict[int, dict[int, Losses]] = {epoch: {} for epoch in epochs}
        self._reduction_factor = reduction_factor
        self._waits_at: dict[int, int] = {}
        self._sent_on_from: dict[int, int] = {}
        self._failed: set[int] = set()

    def close(self, record: TrialRecord) -> None:
        super().close(record)
        self._waits_at.pop(record.number, None)
        if record.status is Status.FAILED:
            self._failed.add(record.number)

    def next_step(self, *, closing: bool) -> Step | None:
        for epoch in sorted(self.rungs, reverse=True):
            for number in self._best_of(epoch, closing=closing):
                if self._waits_at.get(number) == epoch:
                    del self._waits_at[number]
                    self._sent_on_from[number] = epoch
                    self.paused.discard(number)
                    return Continue(number)
        return None

    def _best_of(self, epoch: int, *, closing: bool) -> list[int]:
        """The trials of a rung that may go on, or have gone."""
        points = self.rungs[epoch]
        places = len(points) // self._reduction_factor
        sound = sorted(number for number in points if number not in self._failed)
        return ranked({number: points[number] for number in sound})[: max(1, places) if closing else places]

    def _decide(self, number: int, *, epoch: int, value: float, score: float) -> Decision:
        del value
        if epoch not in self.rungs or epoch <= self._sent_on_from.get(number, 0):
            return Decision.GO_ON
        self.rungs[epoch][number] = self._losses(number, score)
        if number in self.spared:
            self._sent_on_from[number] = epoch
            return Decision.GO_ON
        self._waits_at[number] = epoch
        return Decision.PAUSE

    def _replay(self, record: TrialRecord) -> None:
        losses = self._curve_losses(record)
        for epoch, points in self.rungs.items():
            if epoch not in losses:
                continue
            points[record.number] = losses[epoch]
            if record.epochs > epoch:
                self._sent_on_from[record.number] = epoch
        if record.status is Status.RUNNING and record.epochs in self.rungs and record.number not in self.spared:
            self._waits_at[record.number] = record.epochs
            self.paused.add(record.number)
