"""The runtime contract inside Ray Tune and inside Ray Train; the only module of this package that imports Ray."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ray.train
import ray.train.torch
import ray.tune
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainables.runtime import LocalRuntime, MetricValue


class TuneRuntime(LocalRuntime):
    """A whole trial inside its own Tune actor: on the actor's GPU where it was given one, else on the CPU.

    Args:
        max_epochs: the report of this epoch tells Tune that the trial is done, which spares it a round trip to ask.
    """

    def __init__(self, *, trial_dir: Path, num_threads: int, max_epochs: int) -> None:
        self._max_epochs = max_epochs
        device = "cuda" if ray.get_gpu_ids() else "cpu"
        super().__init__(trial_dir=trial_dir, device=device, num_threads=num_threads)

    def report(self, metrics: Mapping[str, MetricValue]) -> None:
        ray.tune.report({**metrics, "done": metrics["epoch"] == self._max_epochs})


class TrainRuntime:
    """One worker of a Ray Train group, in which Ray has set up `torch.distributed`."""

    def __init__(self, *, trial_dir: Path, num_threads: int) -> None:
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.device: torch.device = ray.train.torch.get_device()
        self.trial_dir: Path | None = trial_dir
        self.num_threads: int | None = num_threads

    def prepare_model(self, model: nn.Module) -> nn.Module:
        if self.world_size == 1:
            return model
        device_ids = [self.device] if self.device.type == "cuda" else None
        # Parameters were drawn from the same seed on every rank; DDP still copies rank 0's before the first step.
        return DistributedDataParallel(model, device_ids=device_ids)

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        if self.world_size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def report(self, metrics: Mapping[str, MetricValue]) -> None:
        ray.train.report(dict(metrics))
