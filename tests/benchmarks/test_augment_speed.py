"""How fast are images augmented? Whole batches against torchvision, image by image, on the same images and one core.

Both sides vary 512 images of 32 x 32 pixels in the same way, and give batches of 64. Ours are the training batches as a
trial gets them; torchvision has the images as decoded uint8 tensors in memory, in the order in which they are taken.

    make benchmark
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from tests.benchmarks.ratios import ratio
from trainables.augment import build_augment
from trainables.batches import TrainBatches
from trainables.config import DataConfig, TrialConfig
from trainables.data import ImageData
from trainables.mixing import Mix, mix_images
from trainables.runtime import LocalRuntime
from trainables.streaming import MemoryImages

pytestmark = pytest.mark.benchmark

IMAGES = 512
BATCH_SIZE = 64
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


Side = Callable[[], Iterator[Any]]


def seconds(side: Side) -> float:
    """Time that all batches of a side take; as in training, one is over when the next comes."""
    start = time.perf_counter()
    for _ in side():
        pass
    return time.perf_counter() - start


def ours(data: ImageData, changes: dict[str, Any]) -> Side:
    config = TrialConfig(data=DataConfig(name="digits"), batch_size=BATCH_SIZE, **changes)
    augment = build_augment(config, num_images=IMAGES)
    runtime = LocalRuntime(num_threads=1)
    batches = TrainBatches(data, np.arange(IMAGES), config=config, augment=augment, runtime=runtime)
    return lambda: batches.epoch(0)


def torchvisions(images: list[torch.Tensor], transforms: tuple[Any, ...]) -> Side:
    compose = v2.Compose(list(transforms))
    starts = range(0, IMAGES, BATCH_SIZE)
    return lambda: (torch.stack([compose(image) for image in images[start : start + BATCH_SIZE]]) for start in starts)


def some_images() -> ImageData:
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    return ImageData(
        store=MemoryImages(pixels),
        labels=np.arange(IMAGES) % 10,
        class_names=tuple("0123456789"),
        given_split=np.full(IMAGES, -1, np.int8),
        names=None,
        fingerprint="random",
        pixel_sums=np.zeros((IMAGES, 2, 3), np.uint64),
    )


def test_augmentation_against_torchvision() -> None:
    torch.set_num_threads(1)
    data = some_images()
    single = list(torch.from_numpy(data.images).permute(0, 3, 1, 2).contiguous())
    print(f"\n{IMAGES} images of 32 x 32, one core, median of {REPEATS}: images a second, and ratio (least to most)")
    for name, (changes, transforms) in CASES.items():
        sides = [ours(data, changes), torchvisions(single, transforms)]
        for side in sides:
            seconds(side)
        # Interleaved, so that whatever else runs on the machine slows both sides alike.
        times = [[seconds(side) for side in sides] for _ in range(REPEATS)]
        whole, single_ones = (IMAGES / median(column) for column in zip(*times, strict=True))
        faster = ratio(f"images/s augmented by {name} over torchvision", [r[1] / r[0] for r in times], better="higher")
        print(f"  {name:<15} vistune: {whole:9,.0f}   torchvision: {single_ones:7,.0f}   ratio {faster}")


MIXES = {"mixup": Mix(0.7), "cutmix": Mix(0.75, (8, 8, 24, 24))}


def mixed_alone(image: torch.Tensor, partner: torch.Tensor, mix: Mix) -> torch.Tensor:
    """One image with its partner, (C, H, W), as a data set that mixes its images does it."""
    if mix.box is None:
        return image.float() * mix.lam + partner.float() * (1 - mix.lam)
    top, left, bottom, right = mix.box
    mixed = image.clone()
    mixed[:, top:bottom, left:right] = partner[:, top:bottom, left:right]
    return mixed


def test_mixing_against_one_image_at_a_time() -> None:
    """torchvision mixes whole batches as well, so it is compared with the same done image by image."""
    torch.set_num_threads(1)
    images = torch.from_numpy(some_images().images).permute(0, 3, 1, 2).contiguous()
    batches = 8 * list(images.split(BATCH_SIZE))  # a few milliseconds would be too short to time
    print(f"\n{IMAGES} images of 32 x 32, one core, median of {REPEATS}: images a second, and ratio (least to most)")
    for name, mix in MIXES.items():
        sides: list[Side] = [
            lambda mix=mix: (mix_images(batch, batch.roll(1, 0), mix) for batch in batches),
            lambda mix=mix: (
                torch.stack([mixed_alone(image, batch[index - 1], mix) for index, image in enumerate(batch)])
                for batch in batches
            ),
        ]
        whole, alone = (torch.cat(list(side())) for side in sides)
        assert torch.allclose(whole.float(), alone.float(), atol=1e-3)
        times = [[seconds(side) for side in sides] for _ in range(REPEATS)]
        faster = ratio(f"images/s mixed by {name} over one at a time", [r[1] / r[0] for r in times], better="higher")
        whole_rate, alone_rate = (len(batches) * BATCH_SIZE / median(column) for column in zip(*times, strict=True))
        print(f"  {name:<15} vistune: {whole_rate:9,.0f}   one at a time: {alone_rate:9,.0f}   ratio {faster}")
