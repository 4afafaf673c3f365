"""Where does a trial run, and to whom does it report? The contract, and its plain-Python implementation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

MetricValue = float | int


class StopTrial(Exception):  # noqa: N818 (nothing has gone wrong)
    """Raised by `Runtime.report` to end the trial that reports."""


class Runtime(Protocol):
    """What `train` may ask of its surroundings; one worker process sees one runtime.

    `rank` counts the workers of a trial from 0 to `world_size` - 1. `trial_dir` is shared by all of them and by
    later attempts at the same trial; None keeps nothing. `num_threads` is the number of CPU threads the worker owns.
    """

    @property
    def rank(self) -> int: ...

    @property
    def world_size(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def num_threads(self) -> int | None: ...

    @property
    def trial_dir(self) -> Path | None: ...

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """Element-wise sum of a tensor of the same shape on every rank; every rank receives it."""

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Adds up the gradients of all ranks, in place; the same parameters have one on every rank."""

    def report(self, metrics: Mapping[str, MetricValue], *, last: bool) -> None:
        """Hands an epoch's metrics on; every rank calls it. It may not return: the scheduler may end the trial here.

        Where several trials train in one process it raises `StopTrial` for that, which ends this one alone.

        Args:
            last: whether the trial ends with this epoch of its own accord.
        """


class LocalRuntime:
    """One worker in this very process: debuggers, tests and scripts train through it without a cluster."""

    rank = 0
    world_size = 1

    def __init__(
        self, *, trial_dir: Path | None = None, device: str | torch.device = "cpu", num_threads: int | None = None
    ) -> None:
        self.trial_dir = trial_dir
        self.device = torch.device(device)
        self.num_threads = num_threads
        self.reported: list[dict[str, MetricValue]] = []

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        return values

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        del parameters

    def report(self, metrics: Mapping[str, MetricValue], *, last: bool) -> None:
        del last
        self.reported.append(dict(metrics))

    def settle(self) -> None:
        """Nothing is decided later than `report` returns."""
