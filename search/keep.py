"""Whose weights stay on disk? Those of the best ended trials, as far as the section `keep` allows."""

from __future__ import annotations

import logging
from bisect import insort
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from search.budget_config import KeepConfig
from search.ledger import TrialRecord, pareto_front, rank_key
from trainables.object_store import remove, size_of

_GIB = 2**30
_log = logging.getLogger(__name__)


class _Kept(NamedTuple):
    record: TrialRecord
    size: int  # bytes


class Keeper:
    """Removes the best weights of ended trials that are not among the best.

    It knows ended trials only: what a running, waiting or paused one needs for going on is never touched.

    Args:
        weights: the file of a trial's best weights, by number.
        objectives: what the search makes small; the weights of the Pareto front always stay.
        at_least: trials whose weights stay whatever their size: those that the winner is chosen from.
    """

    def __init__(
        self,
        config: KeepConfig,
        *,
        metric: str,
        objectives: Sequence[str] = (),
        weights: Callable[[int], Path],
        at_least: int = 1,
    ) -> None:
        self._most = None if config.top is None else max(config.top, at_least)
        self._most_bytes = None if config.gib is None else config.gib * _GIB
        self._at_least = at_least
        self._metric = metric
        self._objectives = tuple(objectives)
        self._weights = weights
        self._kept: list[_Kept] = []  # from best to worst
        self._bytes = 0

    def take_up(self, records: Iterable[TrialRecord]) -> None:
        """Learns of trials that ended in earlier sessions."""
        for record in records:
            self.ended(record)

    def ended(self, record: TrialRecord) -> None:
        """A trial has ended: its weights stay, or they or those of a worse one go."""
        if self._most is None and self._most_bytes is None:
            return
        path = self._weights(record.number)
        size = size_of(path)
        if size is None:
            return
        insort(self._kept, _Kept(record, size), key=lambda kept: rank_key(kept.record, metric=self._metric))
        self._bytes += size
        while self._too_much() and (worst := self._worst()) is not None:
            self._kept.remove(worst)
            self._bytes -= worst.size
            self._remove(self._weights(worst.record.number))

    def _worst(self) -> _Kept | None:
        """Whose weights go next; None when all have to stay."""
        others = self._kept[self._at_least :]
        if not self._objectives:
            return others[-1] if others else None
        every = (kept.record for kept in self._kept)
        front = set(pareto_front(every, metric=self._metric, objectives=self._objectives))
        return next((kept for kept in reversed(others) if kept.record.number not in front), None)

    def _too_much(self) -> bool:
        too_many = self._most is not None and len(self._kept) > self._most
        return too_many or (self._most_bytes is not None and self._bytes > self._most_bytes)

    def _remove(self, path: Path) -> None:
        try:
            remove(path)
        except OSError as error:  # a search does not end because something could not be tidied up
            _log.warning("%s: cannot be removed (%s)", path, error)
