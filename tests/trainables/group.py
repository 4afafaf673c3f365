"""Trains a trial with several processes and no cluster: the runtime contract over torch.distributed (gloo)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from trainables.config import TrialConfig
from trainables.gradients import sum_gradients
from trainables.runtime import LocalRuntime, MetricValue

# A limit of a process counts its heap, in which the C library keeps freed blocks: they go back to the system at once.
RETURN_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


class GroupRuntime(LocalRuntime):
    """One process of an initialised process group."""

    def __init__(self, *, trial_dir: Path | None = None) -> None:
        super().__init__(trial_dir=trial_dir, num_threads=1)
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        values = values.clone()
        dist.all_reduce(values)
        return values

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        sum_gradients(parameters)


def train_on(
    workers: int, config: TrialConfig, folder: Path, *, spare_mib: int | None = None, trial_dir: Path | None = None
) -> list[dict[str, Any]]:
    """The epochs that every rank reported must be the same; returns them.

    Args:
        trial_dir: where the trial is kept; None keeps nothing of it.
        spare_mib: memory that rank 1 may take beyond what it has after its set-up; None sets no limit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "results"
    results.mkdir()
    store = folder / "store"
    arguments = (workers, config.model_dump_json(), str(store), str(results), spare_mib, trial_dir)
    with mock.patch.dict(os.environ, RETURN_FREED_MEMORY):
        mp.spawn(_worker, args=arguments, nprocs=workers)
    reported: list[list[dict[str, MetricValue]]] = [
        torch.load(results / f"{rank}.pt", weights_only=True) for rank in range(workers)
    ]
    kept = [[{k: v for k, v in epoch.items() if not k.endswith("_s")} for epoch in each] for each in reported]
    assert all(each == kept[0] for each in kept)
    return kept[0]


def _worker(
    rank: int, world_size: int, config: str, store: str, results: str, spare_mib: int | None, trial_dir: Path | None
) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    from trainables import train as training

    runtime = GroupRuntime(trial_dir=trial_dir)
    if rank == 1 and spare_mib is not None:
        _limit_memory_after_setup(training, spare_mib)
    training.train(TrialConfig.model_validate_json(config), runtime)
    torch.save(runtime.reported, Path(results) / f"{rank}.pt")
    dist.destroy_process_group()
    # Not by the interpreter's end: a thread of gloo that still holds a finished reduction would then abort the process
    # (https://github.com/pytorch/pytorch/pull/179291).
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _limit_memory_after_setup(training: Any, spare_mib: int) -> None:
    start_trial = training.start_trial

    def limited(config: TrialConfig, runtime: LocalRuntime) -> Any:
        trial = start_trial(config, runtime)
        limit_memory(spare_mib)
        return trial

    training.start_trial = limited


def limit_memory(spare_mib: int) -> None:
    """Lets this process take so much memory beyond what it has; then allocations fail, as on a full device."""
    import resource

    status: Mapping[str, str] = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line
    )
    used = int(status["VmData"].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (used + spare_mib * 2**20, resource.RLIM_INFINITY))


def curve_of(epochs: Iterable[Mapping[str, MetricValue]], *names: str) -> list[tuple[MetricValue, ...]]:
    return [tuple(epoch[name] for name in names) for epoch in epochs]
