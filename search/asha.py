"""Asynchronous successive halving, stopping form, with rungs counted in integers and kept over a restart."""

from __future__ import annotations

import math
from abc import abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from search.dominance import Losses, ranked
from search.ledger import TrialRecord
from search.rungs import rung_epochs
from search.schedulers import Decision, FullScheduler


class Rung:
    """What trials were compared by when they reached one epoch.

    Args:
        rivals: a trial is compared with as many that came last, itself included; None: with all.
    """

    def __init__(self, epoch: int, *, reduction_factor: int, rivals: int | None = None) -> None:
        self.epoch = epoch
        self.points: dict[int, Losses] = {}  # only `add` changes them; in the order of arrival
        self._sorted: list[float] = []  # the first loss of all, so that a decision does not look at each
        self._reduction_factor = reduction_factor
        self._rivals = rivals

    def admits(self, number: int, losses: Losses) -> bool:
        """Records a trial and says whether it is among the best 1 / reduction_factor so far.

        The first to arrive is. Of equal scores the earlier keeps its place: on small validation splits many trials
        tie, and letting all of them go on would spend the budget on what cannot be told apart.
        """
        ahead = self.add(number, losses)
        compared = self.points
        if self._rivals is not None and len(self.points) > self._rivals:
            compared = dict(islice(reversed(self.points.items()), self._rivals))
            ahead = sum(other[0] <= losses[0] for other in compared.values()) - 1
        if len(losses) > 1:
            ahead = ranked(compared).index(number)
        return ahead < math.ceil(len(compared) / self._reduction_factor)

    def add(self, number: int, losses: Losses) -> int:
        """Records a trial; how many have a first loss that is as low or lower, its own former one left out."""
        before = self.points.pop(number, None)
        if before is not None:
            del self._sorted[bisect_left(self._sorted, before[0])]
        place = bisect_right(self._sorted, losses[0])
        self._sorted.insert(place, losses[0])
        self.points[number] = losses
        return place


class Bracket:
    """Rungs that trials climb together."""

    def __init__(self, epochs: Sequence[int], *, reduction_factor: int, rivals: int | None = None) -> None:
        self.rungs = {epoch: Rung(epoch, reduction_factor=reduction_factor, rivals=rivals) for epoch in epochs}

    def decide(self, number: int, *, epoch: int, losses: Losses) -> Decision:
        """Stops a trial at a rung where it is not among the best."""
        rung = self.rungs.get(epoch)
        return Decision.GO_ON if rung is None or rung.admits(number, losses) else Decision.STOP

    def replay(self, number: int, losses: Mapping[int, Losses]) -> None:
        """Fills the rungs that a trial reached in an earlier session.

        Args:
            losses: by epoch that it reached.
        """
        for epoch, rung in self.rungs.items():
            if epoch in losses:
                rung.add(number, losses[epoch])


class RungScheduler(FullScheduler):
    """Compares trials at the epochs of `rung_epochs`; what is kept of each rung is made by `_set_up`."""

    def __init__(
        self,
        *,
        metric: str,
        objectives: Sequence[str] = (),
        grace_period: int,
        reduction_factor: int,
        max_epochs: int,
    ) -> None:
        super().__init__(metric=metric, objectives=objectives)
        epochs = rung_epochs(grace_period=grace_period, reduction_factor=reduction_factor, max_epochs=max_epochs)
        self._set_up(epochs, reduction_factor=reduction_factor)

    @abstractmethod
    def _set_up(self, epochs: list[int], *, reduction_factor: int) -> None:
        """Called once, with the epochs of the rungs in order."""


class AshaScheduler(RungScheduler):
    """ASHA, stopping form: at each rung a trial goes on only if it is among the best there so far.

    The score at a rung is the best validation value up to that epoch, which is also what a trial is finally ranked by.
    With several objectives the best are those that `search.dominance.ranked` puts first.

    Args:
        rivals: a trial is compared with as many that came to the rung last. Where a sampler learns, nearly every new
            trial is among the best of all that ever came, and most would train to their end. None: with all.

    Source: Li et al., A System for Massively Parallel Hyperparameter Tuning, arXiv:1810.05934, which compares with all.
    """

    def __init__(self, *, rivals: int | None = None, **kwargs: Any) -> None:
        self._rivals = rivals
        super().__init__(**kwargs)

    def _set_up(self, epochs: list[int], *, reduction_factor: int) -> None:
        self.bracket = Bracket(epochs, reduction_factor=reduction_factor, rivals=self._rivals)

    def _decide(self, number: int, *, epoch: int, value: float, score: float) -> Decision:
        del value
        return self.bracket.decide(number, epoch=epoch, losses=self._losses(number, score))

    def _replay(self, record: TrialRecord) -> None:
        self.bracket.replay(record.number, self._curve_losses(record))
