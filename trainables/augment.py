"""How are training images varied? Each result depends only on seed, epoch and image, never on batch or worker."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.config import TrialConfig
from trainables.randomness import epoch_stream

# Columns of the table of draws: crop offset down, crop offset right, flip; then two for each RandAugment operation.
_BASIC_DRAWS = 3


class Augment(Protocol):
    """An augmentation of uint8 batches."""

    def start_epoch(self, epoch: int) -> None:
        """Draws the randomness of an epoch, counted from 0; called before its first batch."""

    def __call__(self, images: Tensor, positions: Tensor) -> Tensor:
        """Augmented images of the same shape; the given ones are left as they are.

        Args:
            images: (B, C, H, W) uint8, on any device.
            positions: (B,) int64, on the CPU; the position of each image in the training split, which is its own
                random stream.
        """


def build_augment(config: TrialConfig, *, num_images: int) -> Augment:
    """The configured augmentation of a training split of `num_images` images.

    Raises:
        ConfigError: if an albumentations pipeline names an unknown transform or argument.
    """
    if config.augment == "none":
        return NoAugment()
    if config.augment in ("basic", "randaugment"):
        return TensorAugment(config, num_images=num_images)
    from trainables.pipelines import PipelineAugment  # albumentations takes seconds to import

    return PipelineAugment(
        config.augmentations[config.augment], seed=config.seed, where=f"augmentations.{config.augment}"
    )


class NoAugment:
    """Images as they are."""

    def start_epoch(self, epoch: int) -> None:
        del epoch

    def __call__(self, images: Tensor, positions: Tensor) -> Tensor:
        del positions
        return images


class TensorAugment:
    """Random crop and flip, then RandAugment where asked for, as operations on whole batches."""

    def __init__(self, config: TrialConfig, *, num_images: int) -> None:
        self._num_ops = config.randaugment_num_ops if config.augment == "randaugment" else 0
        self._magnitude = config.randaugment_magnitude
        self._hflip = config.hflip
        self._crop_padding = config.crop_padding
        self._seed = config.seed
        self._num_images = num_images
        self._draws: np.ndarray | None = None

    def start_epoch(self, epoch: int) -> None:
        # A key is a stream of its own; drawing the whole epoch at once costs 10 ns a number.
        generator = np.random.Generator(epoch_stream(self._seed, epoch))
        self._draws = generator.random((self._num_images, _BASIC_DRAWS + 2 * self._num_ops), dtype=np.float32)

    def __call__(self, images: Tensor, positions: Tensor) -> Tensor:
        assert self._draws is not None, "start_epoch comes before the first batch"
        draws = self._draws[positions.cpu().numpy()]
        images = crop_and_flip(images, draws[:, :_BASIC_DRAWS], padding=self._crop_padding, hflip=self._hflip)
        if self._num_ops == 0:
            return images
        from trainables.randaugment import rand_augment

        operations = draws[:, _BASIC_DRAWS:].reshape(len(draws), self._num_ops, 2)
        return rand_augment(images, operations, magnitude=self._magnitude)


def crop_and_flip(images: Tensor, draws: np.ndarray, *, padding: float, hflip: float) -> Tensor:
    """A crop of the zero-padded image at its own size, mirrored left to right or not.

    Args:
        images: (B, C, H, W) uint8.
        draws: (B, 3) float32 in [0, 1): offset down, offset right, flip.
        padding: on each side, as a fraction of the side; rounded to pixels.
        hflip: probability of the flip.

    Returns:
        (B, C, H, W) uint8, a new tensor, channels-last in memory.

    Source: crop and flip of CIFAR training, arXiv:1512.03385 (section 4.2).
    """
    height, width = images.shape[-2:]
    pad_y, pad_x = round(padding * height), round(padding * width)
    rows = _offsets(draws[:, 0], pad_y)[:, None] + np.arange(height)
    columns = _offsets(draws[:, 1], pad_x)[:, None] + np.arange(width)
    columns = np.where(draws[:, 2, None] < hflip, columns[:, ::-1], columns)
    # One flat index into the padded pixels: a single gather, whatever each image drew.
    padded = F.pad(images, (pad_x, pad_x, pad_y, pad_y)).permute(0, 2, 3, 1)
    _, padded_height, padded_width, channels = padded.shape
    index = (np.arange(len(images))[:, None] * padded_height + rows)[:, :, None] * padded_width + columns[:, None, :]
    flat = torch.from_numpy(index.reshape(-1)).to(images.device, non_blocking=True)
    taken = padded.reshape(-1, channels).index_select(0, flat)
    return taken.view(len(images), height, width, channels).permute(0, 3, 1, 2)


def _offsets(draws: np.ndarray, pad: int) -> np.ndarray:
    """Integers from 0 to 2 * pad, each as likely as the others."""
    return np.minimum((draws * (2 * pad + 1)).astype(np.int64), 2 * pad)


def check_augment(config: TrialConfig, *, image_size: int, in_chans: int) -> None:
    """Tries the augmentation on a few random images, as a check before a search.

    Raises:
        ConfigError: if it cannot be built, fails on such images, or changes their size or type.
    """
    augment = build_augment(config, num_images=16)
    pixels = np.random.default_rng(0).integers(0, 256, (16, in_chans, image_size, image_size), dtype=np.uint8)
    augment.start_epoch(0)
    augment(torch.from_numpy(pixels), torch.arange(16))
