"""What does each measure for the CPU gain? With it over without it, the rest as it is, on CIFAR-sized images.

Each round measures both sides one after the other; printed are the medians of the rounds and their range. That two
trials at a time do nearly twice as much as one, each with the threads of its own core, is measured with processes.

    make benchmark
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch

from tests.benchmarks.ratios import ratio
from trainables import optim
from trainables.config import DataConfig, SplitConfig, TrialConfig
from trainables.evaluate import evaluate
from trainables.runtime import LocalRuntime
from trainables.train import train_one_epoch, validate
from trainables.trial_state import TrialState, start_trial

pytestmark = [pytest.mark.benchmark, pytest.mark.filterwarnings("ignore")]

ROUNDS = 5
NETWORKS = ("small_cnn", "mobilenetv3_small_050")
SIDE_PX = 32
NUM_EPOCHS_AT_ONCE = 4


def trial_of(arch: str, *, threads: int = 1, **changes: Any) -> TrialState:
    """A trial on the digits, brought to the size of CIFAR images."""
    base = {"data": DataConfig(name="digits", image_size=SIDE_PX), "split": SplitConfig(val=0.4, test=0.1)}
    config = TrialConfig.model_validate({**base, "arch": arch, "batch_size": 64, "max_epochs": 1000, **changes})
    return start_trial(config, LocalRuntime(num_threads=threads))


def epoch_of(trial: TrialState) -> Callable[[], float]:
    """A function that trains an epoch and returns its seconds."""
    epochs = iter(range(1000))
    return lambda: float(train_one_epoch(trial, epoch=next(epochs))["train_s"])


def seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def compare(name: str, without: Callable[[], float], with_it: Callable[[], float]) -> None:
    """Prints how many times as fast it is with a measure."""
    without(), with_it()
    pairs = [(without(), with_it()) for _ in range(ROUNDS)]
    print(f"  {name}: {ratio(f'speed-up by {name}', [a / b for a, b in pairs], better='higher')}")


@pytest.mark.parametrize("arch", NETWORKS)
def test_training(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    print(f"\n{arch}, {SIDE_PX} px, one thread, time of an epoch without the measure over with it")
    plain = epoch_of(trial_of(arch))
    compare(f"channels-last ({arch})", epoch_of(trial_of(arch, channels_last=False)), plain)
    monkeypatch.setattr(optim, "_FUSED_DEVICES", ())
    unfused = epoch_of(trial_of(arch))
    compare(f"the fused optimizer ({arch})", unfused, plain)


@pytest.mark.parametrize("arch", NETWORKS)
def test_evaluation(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    print(f"\n{arch}, {SIDE_PX} px, one thread, time of a validation without the measure over with it")
    trial = trial_of(arch)
    first_size = trial.val_batches.batch_size

    def validated() -> float:
        return seconds(lambda: validate(trial))

    def without_gradients_only() -> float:
        with monkeypatch.context() as patched:
            patched.setattr("trainables.train.evaluate", torch.no_grad()(evaluate.__wrapped__))  # type: ignore[attr-defined]
            return validated()

    def in_training_batches() -> float:
        trial.val_batches.batch_size = trial.config.batch_size
        try:
            return validated()
        finally:
            trial.val_batches.batch_size = first_size

    compare(f"inference mode, not no_grad ({arch})", without_gradients_only, validated)
    compare(f"batches of {first_size}, not 64 ({arch})", in_training_batches, validated)


def _train_beside(arch: str, threads: int, barrier: Barrier, speeds: Any) -> None:
    epoch = epoch_of(trial_of(arch, threads=threads))
    epoch()
    barrier.wait()
    began = time.perf_counter()
    for _ in range(NUM_EPOCHS_AT_ONCE):
        epoch()
    speeds.put(1 / (time.perf_counter() - began))


def speed_of(count: int, *, arch: str, threads: int) -> float:
    """Epochs per second of so many trials at a time, together."""
    context = multiprocessing.get_context("spawn")
    barrier, speeds = context.Barrier(count), context.Queue()
    trials = [context.Process(target=_train_beside, args=(arch, threads, barrier, speeds)) for _ in range(count)]
    for trial in trials:
        trial.start()
    total = sum(speeds.get() for _ in trials)
    for trial in trials:
        trial.join()
    return float(total)


@pytest.mark.parametrize("arch", NETWORKS)
def test_trials_beside_each_other(arch: str) -> None:
    rounds = [
        [speed_of(count, arch=arch, threads=threads) for count, threads in ((1, 1), (2, 1), (2, 2))]
        for _ in range(ROUNDS)
    ]
    one, two, crowded = (np.array(column) for column in zip(*rounds, strict=True))
    both = ratio(f"two trials on two cores over one ({arch})", (two / one).tolist(), better="higher")
    own = ratio(f"speed-up by threads as many as cores of its own ({arch})", (two / crowded).tolist(), better="higher")
    print(f"\n{arch}: two trials at a time over one {both}; one thread each over two each {own}")
    print(f"  one trial {median(one.tolist()):.2f} epochs of {NUM_EPOCHS_AT_ONCE} a second; torch {torch.__version__}")
