"""What does an epoch cost? A few real steps of each architecture, timed on this machine."""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from search.config import SearchConfig
from trainables.config import TrialConfig
from trainables.errors import ConfigError, VistuneError
from trainables.hyperparameters import Hyperparameters
from trainables.models import count_parameters
from trainables.runtime import LocalRuntime
from trainables.trial_state import TrialState, start_trial

_WARM_UP_STEPS, _MOST_STEPS, _MOST_S = 2, 10, 3.0
_MIB = 2**20
DRAWS, _TIMED = 200, 5  # of the space, and of each architecture
_DRAWN_FOR_ONE = 50  # at most, where some are forbidden


# What else than the architecture decides how long an epoch takes.
_COSTLY = (
    "batch_size", "input_size", "precision", "channels_last", "compile", "finetune", "finetune_stages", "sampling",
    "optimizer", "augment", "crop", "rotation", "color_jitter", "erasing", "mixup_alpha", "cutmix_alpha", "ema_decay",
)  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """One drawn trial.

    Attributes:
        memory_mib: that training took beyond what the process had; on a CPU about that.
        epoch_s: seconds of an epoch, validation included.
        problem: why it could not be measured, if so; the figures are then 0.
    """

    arch: str
    batch_size: int
    num_params: int = 0
    memory_mib: float = 0.0
    images_per_s: float = 0.0
    epoch_s: float = 0.0
    problem: str | None = None


def measure_costs(config: SearchConfig) -> list[Cost]:
    """Times draws of the space, a few of each architecture, one after the other; those that cost the same once.

    Weights are random whatever the search starts from: they cost the same.
    """
    return [_measure(config, trial) for trials in _by_architecture(config).values() for trial in trials]


def mean_epoch_s(config: SearchConfig, costs: Sequence[Cost]) -> float:
    """Seconds of an epoch of a random trial: each architecture counts as often as it is drawn.

    Raises:
        ConfigError: if no architecture could be timed.
    """
    seconds: dict[str, list[float]] = {}
    for each in costs:
        if each.problem is None:
            seconds.setdefault(each.arch, []).append(each.epoch_s)
    if not seconds:
        raise ConfigError(f"space.arch: none could be timed; {costs[0].arch}: {costs[0].problem}")
    return mean(mean(seconds[trial.arch]) for trial in drawn(config) if trial.arch in seconds)


def drawn(config: SearchConfig, *, count: int = DRAWS) -> list[TrialConfig]:
    """Random trials of the space that are not forbidden, the same every time.

    Raises:
        ConfigError: if none is found.
    """
    rng, space = random.Random(config.sampler.seed), config.search_space
    some = (space.draw(rng) for _ in range(_DRAWN_FOR_ONE * count))
    allowed = list(islice((params for params in some if space.forbidden(params) is None), count))
    if not allowed:
        raise ConfigError(f"forbid: all of {_DRAWN_FOR_ONE * count} random trials are forbidden; forbid fewer")
    return [config.trial_config(params) for params in allowed]


def without_weights(trial: TrialConfig) -> TrialConfig:
    """The trial from random weights, which cost the same and need not be at hand."""
    return trial.model_copy(update={"pretrained": False, "weights": None})


def _by_architecture(config: SearchConfig) -> dict[str, list[TrialConfig]]:
    """Of each architecture the first drawn trials that differ in what they cost."""
    names = [*_COSTLY, *(name for name in Hyperparameters.model_fields if name.startswith("cnn_"))]
    found: dict[str, dict[tuple[Any, ...], TrialConfig]] = {}
    for trial in drawn(config):
        own = found.setdefault(trial.arch, {})
        if len(own) < _TIMED:
            own.setdefault(tuple(getattr(trial, name) for name in names), trial)
    return {arch: list(trials.values()) for arch, trials in found.items()}


def local_runtime(config: SearchConfig, trial: TrialConfig) -> LocalRuntime:
    """This machine, with the cores that a trial has."""
    resources = config.resources
    cuda = resources.gpus_per_worker > 0 and torch.cuda.is_available()
    return LocalRuntime(
        device="cuda" if cuda else "cpu",
        num_threads=max(1, int(resources.cpus_per_worker * config.workers_of({"arch": trial.arch}))),
    )


def _measure(config: SearchConfig, trial: TrialConfig) -> Cost:
    runtime = local_runtime(config, trial)
    cuda = runtime.device.type == "cuda"
    threads = torch.get_num_threads()
    try:
        gc.collect()
        if cuda:  # of what was measured before
            torch.cuda.reset_peak_memory_stats()
        before = _memory_bytes(cuda=cuda)
        return _timed(without_weights(trial), runtime, before=before, cuda=cuda)
    except VistuneError as error:
        return Cost(arch=trial.arch, batch_size=trial.batch_size, problem=str(error).splitlines()[0])
    finally:
        torch.set_num_threads(threads)


def _timed(config: TrialConfig, runtime: LocalRuntime, *, before: int, cuda: bool) -> Cost:
    trial = start_trial(config, runtime)
    steps = trial.train_batches.num_steps(0)
    step_s, images_per_step = time_steps(trial)
    memory = _memory_bytes(cuda=cuda) - before
    val_s = _time_validation(trial)
    return Cost(
        arch=config.arch,
        batch_size=config.batch_size,
        num_params=count_parameters(trial.model),
        memory_mib=max(0.0, memory / _MIB),
        images_per_s=images_per_step / step_s,
        epoch_s=steps * step_s + val_s,
    )


def time_steps(trial: TrialState) -> tuple[float, int]:
    """Seconds of a step, reading and augmentation included, and the images of one."""
    trial.start_epoch(0)
    trial.model.train()
    next(trial.train_batches.epoch(0))  # the first reading takes longer than others
    reads: list[float] = []
    times: list[float] = []
    images = 0
    started = time.perf_counter()
    for batch in trial.train_batches.epoch(0):
        read = time.perf_counter()
        reads.append(read - started)
        float(trial.stepper.step(batch)[0])  # waits for the device
        started = time.perf_counter()
        times.append(started - read)
        images = batch.global_size
        enough = len(times) >= _WARM_UP_STEPS + _MOST_STEPS or sum(times[_WARM_UP_STEPS:]) > _MOST_S
        if enough and len(times) > _WARM_UP_STEPS:
            break
    counted = times[_WARM_UP_STEPS:] or times[-1:]  # an epoch may have fewer steps than that
    # Some batches are read at once, with the first of them; the first of all comes with what an epoch needs once.
    together, steps = trial.train_batches.read_together, trial.train_batches.num_steps(0)
    reads_of_some = reads[::together]
    usual_s = mean(reads_of_some[1:] or reads_of_some)
    once_s = max(0.0, reads_of_some[0] - usual_s)
    return mean(counted) + usual_s / min(together, steps) + once_s / steps, images


@torch.inference_mode()
def _time_validation(trial: TrialState) -> float:
    """Seconds of one pass over the validation split, judged by its first batches."""
    trial.model.eval()
    started, seen = time.perf_counter(), 0
    for images, _ in trial.val_batches:
        with trial.stepper.precision.autocast():
            trial.model(trial.stepper.preprocess(images))
        seen += len(images)
        if time.perf_counter() - started > _MOST_S:
            break
    if images.device.type == "cuda":
        torch.cuda.synchronize(images.device)
    return (time.perf_counter() - started) / seen * trial.val_batches.num_images


def _memory_bytes(*, cuda: bool) -> int:
    if cuda:
        return int(torch.cuda.max_memory_allocated())
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
    return pages * os.sysconf("SC_PAGE_SIZE")
