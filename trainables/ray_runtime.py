"""The runtime contract inside Ray Tune and inside Ray Train; the only module of this package that imports Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import ray.train
import ray.train.torch
import ray.tune
import torch
import torch.distributed as dist
from torch import Tensor

from trainables.gradients import sum_gradients
from trainables.runtime import LocalRuntime, MetricValue, StopTrial

# Of a GPU each process takes so much besides what its tensors take.
_CONTEXT_BYTES = 600 * 2**20


def assigned_device() -> str:
    """The device that Ray gave this process: of a GPU that it shares it can use its share of the memory.

    Ray shares GPUs by counting only. Without a limit, the process that asked first for the largest micro-batch would
    have all memory, and what the others find would depend on that.
    """
    if not ray.get_gpu_ids():
        return "cpu"
    share = float(ray.get_runtime_context().get_assigned_resources().get("GPU", 1.0))
    if share < 1:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(max(share / 2, share - _CONTEXT_BYTES / total))
    return "cuda"


class TuneRuntime(LocalRuntime):
    """A whole trial inside its own Tune actor: on the actor's GPU where it was given one, else on the CPU."""

    def __init__(self, *, trial_dir: Path, num_threads: int) -> None:
        super().__init__(trial_dir=trial_dir, device=assigned_device(), num_threads=num_threads)

    def report(self, metrics: Mapping[str, MetricValue], *, last: bool) -> None:
        # `done` spares Tune a round trip to ask.
        ray.tune.report({**metrics, "done": last})


class TaskRuntime(LocalRuntime):
    """A whole training inside a Ray task of its own, of which no scheduler decides.

    Args:
        tell: called with each epoch's metrics.
    """

    def __init__(
        self, *, trial_dir: Path, num_threads: int, tell: Callable[[Mapping[str, MetricValue]], object]
    ) -> None:
        super().__init__(trial_dir=trial_dir, device=assigned_device(), num_threads=num_threads)
        self._tell = tell

    def report(self, metrics: Mapping[str, MetricValue], *, last: bool) -> None:
        del last
        self._tell(metrics)


class GroupRuntime:
    """One worker of a Ray Train group, in which Ray has set up `torch.distributed`.

    Args:
        decide: called on rank 0 with an epoch's metrics; whether the trial goes on.
    """

    def __init__(
        self, *, trial_dir: Path, num_threads: int, decide: Callable[[Mapping[str, MetricValue]], bool]
    ) -> None:
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.device: torch.device = ray.train.torch.get_device()
        self.trial_dir: Path | None = trial_dir
        self.num_threads: int | None = num_threads
        self._decide = decide

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        if self.world_size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        if self.world_size > 1:
            sum_gradients(parameters)

    def report(self, metrics: Mapping[str, MetricValue], *, last: bool) -> None:
        goes_on = torch.zeros(1, device=self.device)
        if self.rank == 0:
            goes_on += self._decide({**metrics, "done": last})
        if not self.sum_over_ranks(goes_on).item():
            raise StopTrial
