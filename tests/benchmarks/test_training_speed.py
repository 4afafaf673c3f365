"""Images per second of `train` against the loop of torchvision's reference style, and against a bare loop.

All three train the same network on the same CIFAR-10 photographs, one after the other in one process, round by round;
printed are the medians of the rounds and their spread. The reference crops and flips, so its ratio is that of `train`
with augment: basic; the bare loop does nothing to its tensors, so it is compared with augment: none as well.
"""

from __future__ import annotations

import cProfile
import pstats
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.benchmarks.ratios import ratio
from trainables.config import DataConfig, SplitConfig, TrialConfig
from trainables.runtime import LocalRuntime
from trainables.train import train_one_epoch
from trainables.trial_state import start_trial

pytestmark = pytest.mark.benchmark

IMAGES = Path(__file__).parents[3] / "shared" / "data" / "cifar10-5k" / "train"
NUM_THREADS = 2
ROUNDS = 7
BATCH_SIZE = 128
NUM_BATCHES = 15  # an epoch of 2,000 images, the last incomplete batch left out
LIGHT = {"arch": "cnn", "cnn_width": 8, "cnn_depth": 1, "cnn_stages": 3}
NETWORKS = {"light cnn": LIGHT, "small_cnn": {"arch": "small_cnn"}, "resnet10t": {"arch": "resnet10t"}}


def config(**changes: object) -> TrialConfig:
    data = DataConfig(name="folder", root=str(IMAGES))
    split = SplitConfig(val=0.3, test=0.3)  # 2,000 images to train on
    base = {"data": data, "split": split, "batch_size": BATCH_SIZE, "max_epochs": 100}
    return TrialConfig.model_validate({**base, **changes})


def our_epoch(changes: dict[str, object]) -> Callable[[], float]:
    """A function that trains one epoch and returns images per second."""
    trial = start_trial(config(**changes), LocalRuntime(num_threads=NUM_THREADS))
    epochs = iter(range(100))
    return lambda: train_one_epoch(trial, epoch=next(epochs))["images_per_s"]


def reference_epoch(changes: dict[str, object], root: Path) -> Callable[[], float]:
    """ImageFolder, PIL, torchvision's transforms and DataLoader, as in torchvision's training reference."""
    from torch.utils.data import DataLoader, Subset
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    normalize = transforms.Normalize([0.49, 0.48, 0.45], [0.25, 0.24, 0.26])
    folder = ImageFolder(str(root), transforms.Compose([*steps, normalize]))
    images = Subset(folder, torch.randperm(len(folder))[: NUM_BATCHES * BATCH_SIZE].tolist())
    loader = DataLoader(images, batch_size=BATCH_SIZE, shuffle=True, num_workers=NUM_THREADS, drop_last=True)
    model, optimizer = network(changes)

    def epoch() -> float:
        started, count = time.perf_counter(), 0
        for batch, labels in loader:
            loss = F.cross_entropy(model(batch), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            count += len(labels)
        return count / (time.perf_counter() - started)

    return epoch


def bare_epoch(changes: dict[str, object]) -> Callable[[], float]:
    """Forward, backward and step over normalised batches that lie ready in memory: the ceiling."""
    model, optimizer = network(changes)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    shape = (BATCH_SIZE, 3, 32, 32)
    batches = [torch.randn(shape).contiguous(memory_format=torch.channels_last) for _ in range(NUM_BATCHES)]
    labels = torch.randint(10, (BATCH_SIZE,))

    def epoch() -> float:
        started = time.perf_counter()
        for batch in batches:
            loss = F.cross_entropy(model(batch), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return len(batches) * BATCH_SIZE / (time.perf_counter() - started)

    return epoch


def network(changes: dict[str, object]) -> tuple[nn.Module, torch.optim.Optimizer]:
    from trainables.models import build_model

    model = build_model(config(**changes), num_classes=10, in_chans=3, image_size=32).train()
    return model, torch.optim.AdamW(model.parameters(), fused=True)


@pytest.mark.skipif(not IMAGES.is_dir(), reason=f"needs the photographs of {IMAGES.parent.name}")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETWORKS)
def test_images_per_second(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(NUM_THREADS)
    changes = NETWORKS[name]
    loops = {
        "basic": our_epoch({**changes, "augment": "basic"}),
        "none": our_epoch({**changes, "augment": "none"}),
        "torchvision style": reference_epoch(changes, IMAGES),
        "bare loop": bare_epoch(changes),
    }
    for epoch in loops.values():  # the first is warm-up
        epoch()
    rounds = [{loop: epoch() for loop, epoch in loops.items()} for _ in range(ROUNDS)]
    speeds = {loop: [each[loop] for each in rounds] for loop in loops}
    with capsys.disabled():
        for ours, theirs in (("basic", "torchvision style"), ("basic", "bare loop"), ("none", "bare loop")):
            over_theirs = [one / other for one, other in zip(speeds[ours], speeds[theirs], strict=True)]
            found = ratio(f"images/s of {name}, augment {ours}, over {theirs}", over_theirs, better="higher")
            print(
                f"\n{name}, augment {ours}: {median(speeds[ours]):,.0f} images/s against {theirs} "
                f"{median(speeds[theirs]):,.0f}: ratio {found}",
                end="",
            )


@pytest.mark.skipif(not IMAGES.is_dir(), reason=f"needs the photographs of {IMAGES.parent.name}")
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("augment", ["none", "basic"])
def test_where_the_time_of_an_epoch_goes(name: str, augment: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Shares of an epoch's time: in forward, backward and optimizer, and in everything else."""
    trial = start_trial(config(**NETWORKS[name], augment=augment), LocalRuntime(num_threads=1))
    train_one_epoch(trial, epoch=0)
    profile = cProfile.Profile()
    profile.enable()
    train_one_epoch(trial, epoch=1)
    profile.disable()
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    total = cumulative(stats, "train.py", "train_one_epoch")
    parts = {
        "forward": cumulative(stats, "module.py", "_wrapped_call_impl"),
        "loss": cumulative(stats, "losses.py", "cross_entropy_sum"),
        "backward": cumulative(stats, "precision.py", "backward"),
        "optimizer": cumulative(stats, "precision.py", "step"),
    }
    with capsys.disabled():
        shares = ", ".join(f"{part} {seconds / total:.1%}" for part, seconds in parts.items())
        rest = 1 - sum(parts.values()) / total
        print(f"\n{name}, augment {augment}: {shares}, everything else {rest:.1%} of {total:.2f} s")


def cumulative(stats: dict[tuple[str, int, str], tuple[int, int, float, float, object]], file: str, name: str) -> float:
    """Cumulative seconds of the first matching function, its recursion counted once."""
    return max(
        (row[3] for (path, _, function), row in stats.items() if path.endswith(file) and function == name), default=0.0
    )
