"""Hyperband: brackets of asynchronous successive halving that differ in how early they stop."""

from __future__ import annotations

from collections.abc import Sequence

from search.asha import Bracket, RungScheduler
from search.ledger import TrialRecord
from search.schedulers import Decision


def bracket_shares(num_brackets: int, *, reduction_factor: int) -> list[int]:
    """Of how many trials each bracket gets its share, the one that stops earliest first.

    A bracket with s rungs starts ceil(B * reduction_factor**s / (s + 1)) trials, B being the number of brackets: all
    brackets then train about as many epochs.

    >>> bracket_shares(5, reduction_factor=3)
    [81, 34, 15, 8, 5]
    """
    levels = reversed(range(num_brackets))
    return [-(-num_brackets * reduction_factor**level // (level + 1)) for level in levels]


class HyperbandScheduler(RungScheduler):
    """ASHA with several grace periods at once: in case the first epochs say little about the last.

    Bracket k has the rungs of ASHA without the lowest k; the last has none and trains in full. Trials are dealt to the
    brackets in the order in which they are proposed, each to the bracket that is furthest behind its share: after
    every sum(shares) trials each has exactly its share. Within a bracket the rules are those of ASHA.

    Source: Li et al., Hyperband, arXiv:1603.06560; asynchronous brackets, arXiv:1810.05934 (section 3.3).
    """

    def _set_up(self, epochs: list[int], *, reduction_factor: int) -> None:
        self.brackets = [
            Bracket(epochs[lowest:], reduction_factor=reduction_factor) for lowest in range(len(epochs) + 1)
        ]
        self._shares = bracket_shares(len(self.brackets), reduction_factor=reduction_factor)
        self._dealt = [0] * len(self.brackets)
        self._bracket_of: dict[int, int] = {}

    def bracket_of(self, number: int) -> int:
        """The bracket of a trial that was added."""
        return self._bracket_of[number]

    def add(self, record: TrialRecord) -> None:
        super().add(record)
        if record.number in self._bracket_of:
            return
        total, position = sum(self._shares), len(self._bracket_of) + 1
        # In units of 1 / total trials, so that nothing is rounded; of equals the one that stops earliest.
        behind = [share * position - total * dealt for share, dealt in zip(self._shares, self._dealt, strict=True)]
        chosen = behind.index(max(behind))
        self._dealt[chosen] += 1
        self._bracket_of[record.number] = chosen

    def put_in_order(self, arrivals: Sequence[tuple[int, int]]) -> None:
        for bracket in self.brackets:
            bracket.put_in_order(arrivals)

    def _decide(self, number: int, *, epoch: int, value: float, score: float) -> Decision:
        del value
        return self.brackets[self._bracket_of[number]].decide(number, epoch=epoch, losses=self._losses(number, score))

    def _replay(self, record: TrialRecord) -> None:
        self.brackets[self._bracket_of[record.number]].replay(record.number, self._curve_losses(record))
