"""Trials that train together against the same trials one after the other, in one process.

For 1, 4 and 16 trials: seconds of `train` of each in turn over seconds of `train_fused` of all, round by round; printed
are the median of the rounds and their spread. Above 1 fusing is faster. On the CPU a small network's kernels are busy
as it is, so little can be gained there; what fusing is for are GPUs, which small kernels leave idle.
"""

from __future__ import annotations

import time

import pytest
import torch

from tests.benchmarks.ratios import ratio
from trainables.config import DataConfig, TrialConfig
from trainables.fused import Candidate, train_fused
from trainables.fused_optim import fused_optimizer
from trainables.models import build_model
from trainables.optim import build_optimizer
from trainables.runtime import LocalRuntime
from trainables.stack import Stack
from trainables.train import train

pytestmark = pytest.mark.benchmark

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROUNDS = 5
NETWORKS = {
    "small_cnn": {"arch": "small_cnn"},
    "cnn, batch norm": {"arch": "cnn", "cnn_width": 16, "cnn_depth": 1},
    "light cnn, group norm": {"arch": "cnn", "cnn_width": 8, "cnn_depth": 1, "cnn_norm": "group"},
}


def configs(num: int, *, side: int, **changes: object) -> list[TrialConfig]:
    base = {"data": DataConfig(name="digits", image_size=side), "batch_size": 64, "max_epochs": 1, "augment": "basic"}
    return [
        TrialConfig.model_validate({**base, "seed": seed, "lr": 1e-3 * (1 + seed), "dropout": 0.1, **changes})
        for seed in range(num)
    ]


def runtime() -> LocalRuntime:
    return LocalRuntime(device=DEVICE, num_threads=1)


def seconds_alone(trials: list[TrialConfig]) -> float:
    started = time.perf_counter()
    for config in trials:
        train(config, runtime())
    return time.perf_counter() - started


def seconds_fused(trials: list[TrialConfig]) -> float:
    waiting = iter([Candidate(config, runtime()) for config in trials])
    started = time.perf_counter()
    train_fused(lambda: next(waiting, None), num_slots=len(trials), on_end=lambda _: None)
    return time.perf_counter() - started


@pytest.mark.parametrize("side", [8, 32])
@pytest.mark.parametrize("network", NETWORKS)
def test_fused_trials(network: str, side: int) -> None:
    print(f"\n{network}, {side} px, batch 64, {DEVICE}: one at a time over fused")
    for num in (1, 4, 16):
        trials = configs(num, side=side, **NETWORKS[network])
        seconds_fused(trials), seconds_alone(trials[:1])  # data, and what is tried out once
        ratios = [seconds_alone(trials) / seconds_fused(trials) for _ in range(ROUNDS)]
        found = ratio(f"{num} trials of {network} at {side} px fused, {DEVICE}", ratios, better="higher")
        print(f"  {num:2d} trials: {found}")


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_vectorised_optimizer(name: str) -> None:
    """What decides whether a device steps slot by slot."""
    print(f"\n{name}, 16 slots of small_cnn, {DEVICE}: slot by slot over vectorised")
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for vectorised in [False, True] * ROUNDS:
        trials = configs(16, side=8, arch="small_cnn", optimizer=name)
        models = [build_model(each, num_classes=10, in_chans=1, image_size=8).to(DEVICE) for each in trials]
        stages = [tuple(dict(models[0].named_parameters()))]
        device = torch.device(DEVICE)
        own = [build_optimizer(*pair, device=device) for pair in zip(models, [stages] * 16, trials, strict=True)]
        stack = Stack(models)
        optimizer = fused_optimizer(stack, own, vectorised=vectorised)
        for step in range(60):
            if step == 10:
                torch.zeros(1, device=DEVICE).item()  # waits for the device
                started = time.perf_counter()
            optimizer.step()
        torch.zeros(1, device=DEVICE).item()
        seconds[vectorised].append(time.perf_counter() - started)
    ratios = [one / other for one, other in zip(seconds[False], seconds[True], strict=True)]
    print(f"  {ratio(f'16 slots of {name} vectorised, {DEVICE}', ratios, better='higher')}")
