"""Asynchronous successive halving, stopping form, with rungs counted in integers and kept over a restart."""

from __future__ import annotations

import math
from abc import abstractmethod
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice, takewhile
from typing import Any

from search.dominance import Losses, ranked
from search.ledger import Status, TrialRecord
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
        """Records a trial and says whether it is among the best 1 / reduction_factor so far. The first to arrive is."""
        self.add(number, losses)
        return self.keeps(number)

    def keeps(self, number: int) -> bool:
        """Whether a recorded trial is still among the best 1 / reduction_factor, now that others have come.

        Of equal scores the earlier keeps its place: on small validation splits many trials tie, and letting all of them
        go on would spend the budget on what cannot be told apart.
        """
        compared = self._compared(number)
        return self._num_ahead(number, compared) < math.ceil(len(compared) / self._reduction_factor)

    def add(self, number: int, losses: Losses) -> None:
        """Records a trial; one that is there already keeps its place in the order of arrival."""
        before = self.points.get(number)
        if before is not None:
            del self._sorted[bisect_left(self._sorted, before[0])]
        insort(self._sorted, losses[0])
        self.points[number] = losses

    def put_in_order(self, numbers: Iterable[int]) -> None:
        """Orders trials as they came; those of which that is not known come first."""
        known = {number: self.points.pop(number) for number in numbers if number in self.points}
        self.points |= known

    def _compared(self, number: int) -> Mapping[int, Losses]:
        """Those that came last and the trial itself, in the order of arrival."""
        if self._rivals is None or len(self.points) <= self._rivals:
            return self.points
        last = list(islice(reversed(self.points), self._rivals))
        if number not in last:
            last.append(number)
        return {each: self.points[each] for each in reversed(last)}

    def _num_ahead(self, number: int, compared: Mapping[int, Losses]) -> int:
        own = compared[number]
        if compared is not self.points or len(own) > 1:
            return ranked(compared).index(number)
        lower, not_higher = bisect_left(self._sorted, own[0]), bisect_right(self._sorted, own[0])
        if not_higher == lower + 1:
            return lower
        earlier = takewhile(lambda each: each != number, self.points)
        return lower + sum(self.points[each] == own for each in earlier)


class Bracket:
    """Rungs that trials climb together.

    Args:
        revisits: whether a trial between two rungs ends once it would no longer go on from the one below.
    """

    def __init__(
        self, epochs: Sequence[int], *, reduction_factor: int, rivals: int | None = None, revisits: bool = False
    ) -> None:
        self.rungs = {epoch: Rung(epoch, reduction_factor=reduction_factor, rivals=rivals) for epoch in epochs}
        self._revisits = revisits

    def decide(self, number: int, *, epoch: int, losses: Losses) -> Decision:
        """Stops a trial at a rung where it is not among the best."""
        rung = self.rungs.get(epoch)
        goes_on = self._still_goes_on(number, epoch=epoch) if rung is None else rung.admits(number, losses)
        return Decision.GO_ON if goes_on else Decision.STOP

    def _still_goes_on(self, number: int, *, epoch: int) -> bool:
        passed = [rung for rung in self.rungs.values() if rung.epoch < epoch] if self._revisits else []
        return not passed or number not in passed[-1].points or passed[-1].keeps(number)

    def replay(self, number: int, losses: Mapping[int, Losses]) -> None:
        """Fills the rungs that a trial reached in an earlier session.

        Args:
            losses: by epoch that it reached.
        """
        for epoch, rung in self.rungs.items():
            if epoch in losses:
                rung.add(number, losses[epoch])

    def put_in_order(self, arrivals: Sequence[tuple[int, int]]) -> None:
        """Orders the trials of each rung as they came.

        Args:
            arrivals: number and epoch of each report.
        """
        for rung in self.rungs.values():
            rung.put_in_order(number for number, epoch in arrivals if epoch == rung.epoch)


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

    def close(self, record: TrialRecord) -> None:
        # Tune asks about no last epoch: where patience ends a trial at a rung, it counts for those that come there.
        if record.status is Status.COMPLETED and record.score is not None:
            value = record.curve[record.epochs]
            self._decide(record.number, epoch=record.epochs, value=value, score=record.score)
        super().close(record)

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
        revisits: whether a trial between two rungs ends once those that came since make it one that would not have gone
            on. The first to reach a rung always go on, however poor, and have most of their training before them.

    Source: Li et al., A System for Massively Parallel Hyperparameter Tuning, arXiv:1810.05934, which compares with all
    and decides once.
    """

    def __init__(self, *, rivals: int | None = None, revisits: bool = False, **kwargs: Any) -> None:
        self._options: dict[str, Any] = {"rivals": rivals, "revisits": revisits}
        super().__init__(**kwargs)

    def _set_up(self, epochs: list[int], *, reduction_factor: int) -> None:
        self.bracket = Bracket(epochs, reduction_factor=reduction_factor, **self._options)

    def put_in_order(self, arrivals: Sequence[tuple[int, int]]) -> None:
        self.bracket.put_in_order(arrivals)

    def _decide(self, number: int, *, epoch: int, value: float, score: float) -> Decision:
        del value
        return self.bracket.decide(number, epoch=epoch, losses=self._losses(number, score))

    def _replay(self, record: TrialRecord) -> None:
        self.bracket.replay(record.number, self._curve_losses(record))
