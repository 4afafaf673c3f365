"""Random search without early stopping: every trial is drawn uniformly and trained to its end."""

from __future__ import annotations

import random
from collections.abc import Hashable

from search.space import Space
from search.virtual_clock import Job, Report


class RandomSearch:
    """The baseline by whose budget the others are measured."""

    over = False

    def __init__(self, space: Space, *, seed: int) -> None:
        self._space = space
        self._rng = random.Random(seed)
        self._count = 0

    def next_job(self) -> Job:
        self._count += 1
        return Job(self._count, self._space.draw(self._rng))

    def report(self, key: Hashable, report: Report) -> bool:
        """Every trial goes on until its end."""
        del key
        return not report.last
