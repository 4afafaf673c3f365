"""How much time do some methods take? Counts their calls, CPU and wall seconds while a program runs."""

from __future__ import annotations

import functools
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Stopwatch:
    """Adds up what methods take, those that they call included.

    Attributes:
        calls, cpu_s, wall_s: by name; CPU seconds are those of the thread that made the call.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.cpu_s: defaultdict[str, float] = defaultdict(float)
        self.wall_s: defaultdict[str, float] = defaultdict(float)
        self._after: dict[str, Callable[[], None]] = {}

    @contextmanager
    def on(self, methods: Mapping[str, tuple[type, str]]) -> Iterator[None]:
        """Times methods of classes, by name, while the block runs."""
        before = [(cls, method, cls.__dict__[method]) for cls, method in methods.values()]
        for name, (cls, method) in methods.items():
            self.calls[name] = 0
            setattr(cls, method, self._timed(name, cls.__dict__[method]))
        try:
            yield
        finally:
            for cls, method, original in before:
                setattr(cls, method, original)

    def after(self, name: str, do: Callable[[], None]) -> None:
        """Has something done after every call of a method that is timed under this name."""
        self._after[name] = do

    def _timed(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            cpu, wall = time.thread_time(), time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                self.calls[name] += 1
                self.cpu_s[name] += time.thread_time() - cpu
                self.wall_s[name] += time.perf_counter() - wall
                self._after.get(name, _nothing)()

        return call


def _nothing() -> None:
    """What is done after a method of which nobody asked."""


def memory_mib() -> tuple[float, float]:
    """Resident and proportional set size of this process."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    sizes = {line.split(":")[0]: line.split()[1] for line in lines if line.endswith("kB")}
    return int(sizes["Rss"]) / 1024, int(sizes["Pss"]) / 1024
