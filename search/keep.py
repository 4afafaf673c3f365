"""Whose weights stay on disk? Those of the best ended trials, as far as the section `keep` allows."""

from __future__ import annotations

import logging
from bisect import insort
from collections.abc import Callable, Iterable
from pathlib import Path

from search.budget_config import KeepConfig
from search.ledger import RankKey, TrialRecord, rank_key

_GIB = 2**30
_log = logging.getLogger(__name__)


class Keeper:
    """Removes the best weights of ended trials that are not among the best.

    It knows ended trials only: what a running, waiting or paused one needs for going on is never touched.

    Args:
        weights: the file of a trial's best weights, by number.
        at_least: trials whose weights stay whatever their size: those that the winner is chosen from.
    """

    def __init__(self, config: KeepConfig, *, metric: str, weights: Callable[[int], Path], at_least: int = 1) -> None:
        self._most = None if config.top is None else max(config.top, at_least)
        self._most_bytes = None if config.gib is None else config.gib * _GIB
        self._at_least = at_least
        self._metric = metric
        self._weights = weights
        self._kept: list[tuple[RankKey, int, int]] = []  # from best to worst: key, number, bytes
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
        if not path.is_file():
            return
        size = path.stat().st_size
        insort(self._kept, (rank_key(record, metric=self._metric), record.number, size))
        self._bytes += size
        while self._too_much():
            _, number, size = self._kept.pop()
            self._bytes -= size
            self._remove(self._weights(number))

    def _too_much(self) -> bool:
        if len(self._kept) <= self._at_least:
            return False
        too_many = self._most is not None and len(self._kept) > self._most
        return too_many or (self._most_bytes is not None and self._bytes > self._most_bytes)

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:  # a search does not end because something could not be tidied up
            _log.warning("%s: cannot be removed (%s)", path, error)
