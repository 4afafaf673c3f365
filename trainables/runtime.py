"""Where does a trial run, and to whom does it report? The contract, and its plain-Python implementation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

MetricValue = float | int


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

    def prepare_model(self, model: nn.Module) -> nn.Module:
        """Wraps a model that already lies on `device` so that its gradients are averaged over the workers."""

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """Element-wise sum of a tensor of the same shape on every rank; every rank receives it."""

    def report(self, metrics: Mapping[str, MetricValue]) -> None:
        """Hands an epoch's metrics on; every rank calls it. It may not return: the scheduler may end the trial here."""


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

    def prepare_model(self, model: nn.Module) -> nn.Module:
        return model

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        return values

    def report(self, metrics: Mapping[str, MetricValue]) -> None:
        self.reported.append(dict(metrics))
