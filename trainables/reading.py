"""How long does training wait for its images?"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Reading(Generic[T]):
    """Passes on what is read, and counts the time that it took to come.

    Attributes:
        seconds: so far.
    """

    def __init__(self, source: Iterable[T]) -> None:
        self._source = source
        self.seconds = 0.0

    def __iter__(self) -> Iterator[T]:
        started = time.perf_counter()
        for each in self._source:
            self.seconds += time.perf_counter() - started
            yield each
            started = time.perf_counter()
