"""Which images form a batch? Rows of a split, in an order fixed by the seed alone, varied and mixed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from trainables.augment import Augment
from trainables.config import TrialConfig
from trainables.data import ImageData
from trainables.imbalance import epoch_order
from trainables.memory import is_out_of_memory, release_memory
from trainables.mixing import Mix, draw_mix, mix_images, mix_targets
from trainables.runtime import Runtime
from trainables.seeds import Stream, stream_seed
from trainables.stratify import nested_order

T = TypeVar("T")

EVAL_BATCH_SIZE = 256

# Smaller batches are augmented together, as long as they are no more images and values than these: each operation then
# costs little beside its work, and what it works on still fits a processor's cache.
_IMAGES_TOGETHER = 256
_VALUES_TOGETHER = 2**20


@dataclass(frozen=True)
class Batch:
    """This rank's share of a batch.

    Attributes:
        images: (B, C, H, W) pixels from 0 to 255, uint8, or float32 where they are mixed; channels-last in memory.
        targets: (B,) int64 classes, or (B, num_classes) float32 where they are mixed or multi-label.
        global_size: images in the batch over all ranks, B or more.
    """

    images: Tensor
    targets: Tensor
    global_size: int

    def micro_batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and targets, at most `size` at a time; none much smaller than others, for the sake of BatchNorm."""
        num_parts = -(-len(self.images) // size)
        yield from zip(self.images.tensor_split(num_parts), self.targets.tensor_split(num_parts), strict=True)


@dataclass(frozen=True)
class _Share:
    """What of a batch is this rank's.

    Attributes:
        slots: (B,) int64, places in the epoch's order; as many for the partners follow where a mix has some.
    """

    slots: np.ndarray
    mix: Mix | None


class TrainBatches:
    """Shuffled, augmented, mixed training batches; every rank draws the same order and takes its rows of each batch.

    The order depends on seed and epoch only, an augmentation on seed, epoch and place in the order, a mix on seed,
    epoch and step: a trial sees the same images whether it runs on one worker or on several, interrupted or not. The
    last incomplete batch is left out, so that no step is taken on a handful of images; a split smaller than one batch
    is one batch.
    """

    def __init__(
        self, data: ImageData, rows: np.ndarray, *, config: TrialConfig, augment: Augment, runtime: Runtime
    ) -> None:
        self._data = data
        if config.fidelity.name == "data_fraction":
            rng = np.random.default_rng(stream_seed(config.seed, Stream.FIDELITY))
            rows = rows[nested_order(data.labels[rows], rng=rng)]
        self._rows = rows
        self._labels = data.labels[rows]
        self._config = config
        self._augment = augment
        self._batch_size = min(config.batch_size, len(rows))
        self._runtime = runtime

    def num_steps(self, epoch: int) -> int:
        """Batches of an epoch, counted from 0."""
        return self._num_images(epoch) // self._batch_size

    @property
    def largest_share(self) -> int:
        """Most images of a batch that this rank may get."""
        return -(-self._batch_size // self._runtime.world_size)

    @property
    def read_together(self) -> int:
        """How many batches are read and augmented at a time, when the first of them is asked for."""
        num_images = min(_IMAGES_TOGETHER, _VALUES_TOGETHER // int(np.prod(self._data.shape[1:])))
        return max(1, num_images // self._batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch, counted from 0."""
        self._augment.start_epoch(epoch)
        order = epoch_order(self._labels[: self._num_images(epoch)], config=self._config, epoch=epoch)
        # Some are read ahead; all at once would have the first step wait for the draws of a whole epoch.
        groups, ahead = itertools.tee(self._groups(epoch))
        pixels = self._data.batches(
            (self._rows[order[slots]] for _, slots in ahead), num_threads=self._runtime.num_threads or 1
        )
        for images, (shares, slots) in zip(pixels, groups, strict=True):
            yield from self._batches(images, self._labels[order[slots]], slots, shares)

    def _num_images(self, epoch: int) -> int:
        """Images of an epoch; a batch at least."""
        wanted = self._config.fidelity.num_images(epoch, num_images=len(self._rows))
        return max(self._batch_size, wanted)

    def _share(self, epoch: int, step: int) -> _Share:
        _, height, width, _ = self._data.shape
        mix = draw_mix(self._config, epoch=epoch, step=step, height=height, width=width)
        return _Share(self._slots(step, mixed=mix is not None), mix)

    def _groups(self, epoch: int) -> Iterator[tuple[Sequence[_Share], np.ndarray]]:
        """This rank's shares of the batches that are augmented together, and the slots of all of them."""
        num_steps = self.num_steps(epoch)
        for start in range(0, num_steps, self.read_together):
            steps = range(start, min(start + self.read_together, num_steps))
            shares = [self._share(epoch, step) for step in steps]
            yield shares, np.concatenate([share.slots for share in shares])

    def _slots(self, step: int, *, mixed: bool) -> np.ndarray:
        """Places in the epoch's order of this rank's share; where it is mixed on several ranks, its partners follow.

        The partner of an image is its mirror place in the global batch. It may belong to another rank, so each rank
        makes the partners of its own images, and results do not depend on the number of ranks.
        """
        whole = np.arange(step * self._batch_size, (step + 1) * self._batch_size)
        rank, world_size = self._runtime.rank, self._runtime.world_size
        share = whole[rank::world_size]
        if not mixed or world_size == 1:
            return share
        return np.concatenate([share, whole[::-1][rank::world_size]])

    def _batches(
        self, pixels: np.ndarray, labels: np.ndarray, slots: np.ndarray, group: Sequence[_Share]
    ) -> Iterator[Batch]:
        images, targets = _tensors(pixels, labels)
        if self._augment.on_cpu:
            images = self._augment(images, torch.from_numpy(slots))
        images, targets = _upload(images, self._runtime.device), _upload(targets, self._runtime.device)
        if not self._augment.on_cpu:
            images = self._augment(images, torch.from_numpy(slots))
        sizes = [len(share.slots) for share in group]
        for share, mine, my_targets in zip(group, torch.split(images, sizes), torch.split(targets, sizes), strict=True):
            if share.mix is not None:
                mine, my_targets = self._mixed(mine, my_targets, share.mix)
            yield Batch(images=mine, targets=my_targets, global_size=self._batch_size)

    def _mixed(self, images: Tensor, targets: Tensor, mix: Mix) -> tuple[Tensor, Tensor]:
        """Each image of this rank's share with its partner."""
        alone = self._runtime.world_size == 1
        share = len(images) if alone else len(images) // 2
        partners = images.flip(0) if alone else images[share:]
        partner_targets = targets.flip(0) if alone else targets[share:]
        mixed = mix_images(images[:share], partners, mix)
        return mixed, mix_targets(targets[:share], partner_targets, mix, num_classes=len(self._data.class_names))


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
        num_threads: int = 1,
        batch_size: int = EVAL_BATCH_SIZE,
    ) -> None:
        self.num_images = len(rows)
        self.batch_size = batch_size
        self._data = data
        self._rows = rows[rank::world_size]
        self._device = device
        self._num_threads = num_threads

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        chunks = [self._rows[start : start + self.batch_size] for start in range(0, len(self._rows), self.batch_size)]
        for rows, pixels in zip(chunks, self._data.batches(chunks, num_threads=self._num_threads), strict=True):
            images, targets = _tensors(pixels, self._data.labels[rows])
            yield _upload(images, self._device), _upload(targets, self._device)

    def within_memory(self, a_pass: Callable[[], T]) -> T:
        """What a pass over these batches returns, with half as many images at a time whenever they do not fit."""
        while True:
            try:
                return a_pass()
            except Exception as error:
                if not is_out_of_memory(error) or self.batch_size == 1:
                    raise
            release_memory(self._device)
            self.batch_size = -(-self.batch_size // 2)


def _tensors(pixels: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    # (B, H, W, C) viewed as (B, C, H, W) is channels-last already: no copy is made for it.
    targets = torch.from_numpy(labels)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2), targets.float() if labels.ndim == 2 else targets


def _upload(values: Tensor, device: torch.device) -> Tensor:
    """The same on a device; a GPU goes on meanwhile."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)
