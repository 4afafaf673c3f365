"""Training batches: what is worked on together is a question of speed, and shows in no pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from trainables import batches
from trainables.augment import build_augment
from trainables.batches import Batch, TrainBatches
from trainables.config import DataConfig, TrialConfig
from trainables.runtime import LocalRuntime
from trainables.trial_state import load_task


class _Rank(LocalRuntime):
    def __init__(self, rank: int, world_size: int) -> None:
        super().__init__(num_threads=1)
        self.rank, self.world_size = rank, world_size


def batches_of_two_epochs(runtime: LocalRuntime, **changes: Any) -> list[Batch]:
    config = TrialConfig(data=DataConfig(name="digits"), batch_size=24, **changes)
    data, splits, _ = load_task(config.data, config.split)
    augment = build_augment(config, num_images=len(splits.train))
    train = TrainBatches(data, splits.train, config=config, augment=augment, runtime=runtime)
    return [batch for epoch in (0, 1) for batch in train.epoch(epoch)]


@pytest.mark.parametrize(
    "changes",
    [
        {"augment": "randaugment", "erasing": 0.5, "rotation": 10.0},
        {"augment": "augmix", "mixup_alpha": 0.4, "cutmix_alpha": 1.0},
        {"augment": "flips", "augmentations": {"flips": [{"HorizontalFlip": {"p": 0.5}}]}, "cutmix_alpha": 1.0},
    ],
    ids=["operations", "mixed", "pipeline"],
)
@pytest.mark.parametrize("ranks", [1, 2])
def test_batches_augmented_together_are_those_augmented_alone(
    changes: dict[str, Any], ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in range(ranks):
        together = batches_of_two_epochs(_Rank(rank, ranks), **changes)
        monkeypatch.setattr(batches, "_IMAGES_TOGETHER", 1)
        alone = batches_of_two_epochs(_Rank(rank, ranks), **changes)
        monkeypatch.undo()
        assert len(together) == len(alone) > 80
        for one, other in zip(together, alone, strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.targets, other.targets)
            assert one.global_size == other.global_size == 24
            assert one.images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("batch_size", "side", "calls"), [(16, 8, [256, 112]), (16, 96, [112, 112, 112, 32]), (300, 8, [300])]
)
def test_how_many_are_augmented_together(batch_size: int, side: int, calls: list[int]) -> None:
    """Few images where they are large, and never less than a batch."""
    config = TrialConfig(data=DataConfig(name="digits", image_size=side), batch_size=batch_size)
    data, _, _ = load_task(config.data, config.split)
    called: list[int] = []

    class Noted:
        on_cpu = False

        def start_epoch(self, epoch: int) -> None:
            assert epoch == 0

        def __call__(self, images: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
            assert len(images) == len(positions)
            called.append(len(images))
            return images

    train = TrainBatches(data, np.arange(370), config=config, augment=Noted(), runtime=LocalRuntime(num_threads=1))
    assert [len(batch.images) for batch in train.epoch(0)] == [batch_size] * (370 // batch_size)
    assert called == calls
