"""Which images form a batch? Rows of the shared decoded images, in an order fixed by the seed alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainables.augment import Augment
from trainables.data import ImageData
from trainables.seeds import Stream, stream_seed

EVAL_BATCH_SIZE = 256


@dataclass(frozen=True)
class Batch:
    """This rank's share of a batch.

    Attributes:
        images: (B, C, H, W) uint8, channels-last in memory.
        labels: (B,) int64.
        global_size: images in the batch over all ranks, B or more.
    """

    images: Tensor
    labels: Tensor
    global_size: int


class Normalizer:
    """uint8 images to float32 with zero mean and unit variance per channel."""

    def __init__(self, mean: list[float], std: list[float], *, device: torch.device) -> None:
        self._mean = (torch.tensor(mean, device=device) * 255).view(1, -1, 1, 1)
        self._inverse_std = 1 / (torch.tensor(std, device=device) * 255).view(1, -1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        return images.to(torch.float32).sub_(self._mean).mul_(self._inverse_std)


def channel_statistics(images: np.ndarray, rows: np.ndarray, *, most: int = 10_000) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel in [0, 1], over at most `most` evenly spaced images.

    Args:
        images: (N, H, W, C) uint8.
        rows: the images to use, int64; the training split, so that nothing leaks from the others.
    """
    step = max(1, len(rows) // most)
    pixels = images[rows[::step]].reshape(-1, images.shape[-1])
    mean = pixels.mean(axis=0, dtype=np.float64) / 255
    std = pixels.std(axis=0, dtype=np.float64) / 255
    return mean.tolist(), np.maximum(std, 1e-3).tolist()


class TrainBatches:
    """Shuffled, augmented training batches; every rank draws the same order and takes its rows of each batch.

    The order depends on seed and epoch only, and an augmentation on seed, epoch and image: a trial sees the same
    images whether it runs on one worker or on several, interrupted or not. The last incomplete batch is left out,
    so that no step is taken on a handful of images; a split smaller than one batch is one batch.
    """

    def __init__(
        self,
        data: ImageData,
        rows: np.ndarray,
        *,
        augment: Augment,
        batch_size: int,
        seed: int,
        rank: int,
        world_size: int,
        device: torch.device,
    ) -> None:
        self._data = data
        self._rows = rows
        self._augment = augment
        self._batch_size = min(batch_size, len(rows))
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._device = device

    @property
    def steps_per_epoch(self) -> int:
        return len(self._rows) // self._batch_size

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch, counted from 0."""
        self._augment.start_epoch(epoch)
        order = np.random.default_rng(stream_seed(self._seed, Stream.ORDER, epoch)).permutation(len(self._rows))
        for step in range(self.steps_per_epoch):
            whole = order[step * self._batch_size : (step + 1) * self._batch_size]
            share = whole[self._rank :: self._world_size]
            images, labels = _take(self._data, self._rows[share], device=self._device)
            images = self._augment(images, torch.from_numpy(share))
            yield Batch(images=images, labels=labels, global_size=len(whole))


class EvalBatches:
    """Every image of a split once, in order, shared out over the ranks without padding."""

    def __init__(
        self,
        data: ImageData,
        rows: np.ndarray,
        *,
        device: torch.device,
        rank: int = 0,
        world_size: int = 1,
        batch_size: int = EVAL_BATCH_SIZE,
    ) -> None:
        self._data = data
        self._rows = rows[rank::world_size]
        self._device = device
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self._rows), self._batch_size):
            yield _take(self._data, self._rows[start : start + self._batch_size], device=self._device)


def _take(data: ImageData, rows: np.ndarray, *, device: torch.device) -> tuple[Tensor, Tensor]:
    # (B, H, W, C) viewed as (B, C, H, W) is channels-last already: no copy is made for it.
    images = torch.from_numpy(data.images[rows]).permute(0, 3, 1, 2)
    labels = torch.from_numpy(data.labels[rows])
    if device.type == "cuda":
        images, labels = images.pin_memory(), labels.pin_memory()
    return images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
