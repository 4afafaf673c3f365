"""How fast are images augmented? Whole batches against torchvision, image by image, on the same images and one core.

Both sides vary 256 images of 32 x 32 pixels in the same way; torchvision gets them decoded, as uint8 tensors in memory.

    make benchmark
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from tests.benchmarks.ratios import ratio
from trainables.augment import build_augment
from trainables.config import DataConfig, TrialConfig

pytestmark = pytest.mark.benchmark

IMAGES = 256
REPEATS = 7
CROP_FLIP = (v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip())

CASES: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "basic": ({"augment": "basic"}, CROP_FLIP),
    "resized crop": (
        {"augment": "basic", "crop": "resized"},
        (v2.RandomResizedCrop(32, scale=(0.35, 1)), CROP_FLIP[1]),
    ),
    "rotation": (
        {"augment": "basic", "rotation": 15.0},
        (*CROP_FLIP, v2.RandomRotation(15, interpolation=v2.InterpolationMode.BILINEAR)),
    ),
    "colour jitter": ({"augment": "basic", "color_jitter": 0.4}, (*CROP_FLIP, v2.ColorJitter(0.4, 0.4, 0.4, 0.1))),
    "erasing": ({"augment": "none", "erasing": 0.5}, (v2.RandomErasing(p=0.5),)),
    "randaugment": ({"augment": "randaugment"}, (*CROP_FLIP, v2.RandAugment(2, 9))),
    "autoaugment": ({"augment": "autoaugment"}, (*CROP_FLIP, v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10))),
    "trivialaugment": ({"augment": "trivialaugment"}, (*CROP_FLIP, v2.TrivialAugmentWide())),
    "augmix": ({"augment": "augmix"}, (*CROP_FLIP, v2.AugMix(3, 3))),
}


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def ours(images: torch.Tensor, changes: dict[str, Any], *, batch_size: int) -> Callable[[], Any]:
    augment = build_augment(TrialConfig(data=DataConfig(name="digits"), **changes), num_images=IMAGES)
    augment.start_epoch(0)
    batches = list(zip(images.split(batch_size), torch.arange(IMAGES).split(batch_size), strict=True))
    return lambda: [augment(batch, slots) for batch, slots in batches]


def test_augmentation_against_torchvision() -> None:
    torch.set_num_threads(1)
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    channels_last = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    single = list(channels_last.contiguous())
    print(f"\n{IMAGES} images of 32 x 32, one core, median of {REPEATS}: images a second, and ratio (least to most)")
    for name, (changes, transforms) in CASES.items():
        compose = v2.Compose(list(transforms))
        sides = [ours(channels_last, changes, batch_size=size) for size in (64, 256)]
        sides.append(lambda compose=compose: [compose(image) for image in single])
        for side in sides:
            side()
        # Interleaved, so that whatever else runs on the machine slows all sides alike.
        times = [[seconds(side) for side in sides] for _ in range(REPEATS)]
        small, large, reference = (IMAGES / median(column) for column in zip(*times, strict=True))
        faster = ratio(f"images/s augmented by {name} over torchvision", [r[2] / r[0] for r in times], better="higher")
        print(
            f"  {name:<15} batches of 64: {small:9,.0f}   of 256: {large:9,.0f}   torchvision: {reference:7,.0f}"
            f"   ratio {faster}"
        )
