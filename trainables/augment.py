"""How are training images varied? Each result depends only on seed, epoch and slot, never on batch or worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from trainables.color import color_jitter
from trainables.config import TrialConfig
from trainables.draws import Purpose, SlotDraws, purpose_stream
from trainables.erasing import ERASING_DRAWS, erase, erasing_noise
from trainables.geometry import BOX_DRAWS, crop_and_flip, resized_crop, resized_crop_boxes, rotate
from trainables.hyperparameters import BUILTIN_AUGMENTATIONS
from trainables.layouts import to_pixels, to_planes
from trainables.policies import (
    AUTO_AUGMENT_DRAWS,
    TRIVIAL_AUGMENT_DRAWS,
    aug_mix,
    aug_mix_draws,
    auto_augment,
    trivial_augment,
)
from trainables.randaugment import rand_augment

# Numbers of a slot in the stream CROP_AND_POLICY: offset down, offset right, horizontal flip; a policy's follow.
_CROP_DRAWS = 3
# In the stream VARIATION: vertical flip, rotation, the four of the jitter; those of the resized crop follow.
_VARIATION_DRAWS = 6
# Most values that are augmented at once: AugMix takes some 40 bytes for each.
_MOST_VALUES = 2**22


class Augment(Protocol):
    """An augmentation of uint8 batches.

    Attributes:
        on_cpu: whether images have to be on the CPU for it, or are fetched from where they are.
    """

    on_cpu: bool

    def start_epoch(self, epoch: int) -> None:
        """Sets the randomness of an epoch, counted from 0; called before its first batch."""

    def __call__(self, images: Tensor, positions: Tensor) -> Tensor:
        """Augmented images of the same shape; the given ones are left as they are.

        Args:
            images: (B, C, H, W) uint8, on any device.
            positions: (B,) int64, on the CPU; the slot of each image in the epoch's order, which is its own random
                stream. An image that is drawn twice in an epoch has two slots.
        """


def build_augment(config: TrialConfig, *, num_images: int) -> Augment:
    """The configured augmentation of epochs of `num_images` slots.

    Raises:
        ConfigError: if an albumentations pipeline names an unknown transform or argument.
    """
    stages: list[Augment] = []
    if config.augment in BUILTIN_AUGMENTATIONS:
        if config.augment != "none":
            stages.append(TensorAugment(config, num_images=num_images))
    else:
        from trainables.pipelines import PipelineAugment  # albumentations takes seconds to import

        steps, where = config.augmentations[config.augment], f"augmentations.{config.augment}"
        stages.append(PipelineAugment(steps, seed=config.seed, where=where))
    if config.erasing > 0:
        stages.append(Erasing(config, num_images=num_images))
    return stages[0] if len(stages) == 1 else Stages(stages)


class Stages:
    """Augmentations one after the other; without any, images stay as they are."""

    def __init__(self, stages: Sequence[Augment]) -> None:
        self._stages = tuple(stages)
        self.on_cpu = any(stage.on_cpu for stage in stages)

    def start_epoch(self, epoch: int) -> None:
        for stage in self._stages:
            stage.start_epoch(epoch)

    def __call__(self, images: Tensor, positions: Tensor) -> Tensor:
        for stage in self._stages:
            images = stage(images, positions)
        return images


class TensorAugment:
    """Random crop, flips, rotation and jitter, then a policy where asked for, as operations on whole batches."""

    on_cpu = False

    def __init__(self, config: TrialConfig, *, num_images: int) -> None:
        self._config = config
        num_draws, self._policy = _policy(config)
        self._draws = SlotDraws(
            seed=config.seed, purpose=Purpose.CROP_AND_POLICY, width=_CROP_DRAWS + num_draws, num_slots=num_images
        )
        resizes = config.crop == "resized"
        self._variation: SlotDraws | None = None
        if resizes or max(config.vflip, config.rotation, config.color_jitter) > 0:
            self._variation = SlotDraws(
                seed=config.seed,
                purpose=Purpose.VARIATION,
                width=_VARIATION_DRAWS + (BOX_DRAWS if resizes else 0),
                num_slots=num_images,
            )

    def start_epoch(self, epoch: int) -> None:
        self._draws.start_epoch(epoch)
        if self._variation is not None:
            self._variation.start_epoch(epoch)

    def __call__(self, images: Tensor, positions: Tensor) -> Tensor:
        slots = positions.cpu().numpy()
        draws = self._draws(slots)
        variation = np.zeros((len(slots), _VARIATION_DRAWS), np.float32)
        if self._variation is not None:
            variation = self._variation(slots)
        at_once = max(1, _MOST_VALUES // images[0].numel())
        parts = [slice(start, start + at_once) for start in range(0, len(images), at_once)]
        done = [self._augment(images[part], draws[part], variation[part]) for part in parts]
        return done[0] if len(done) == 1 else torch.cat(done)

    def _augment(self, images: Tensor, draws: np.ndarray, variation: np.ndarray) -> Tensor:
        config = self._config
        images = self._crop(images, draws, variation)
        if config.rotation > 0:
            images = rotate(images, config.rotation * (2 * variation[:, 1] - 1))
        if config.color_jitter > 0:
            factors = jitter_factors(variation[:, 2:6], strength=config.color_jitter)
            images = color_jitter(images, torch.from_numpy(factors).to(images.device, non_blocking=True))
        if self._policy is not None:
            images = self._policy(to_planes(images), draws[:, _CROP_DRAWS:])
        return to_pixels(images)

    def _crop(self, images: Tensor, draws: np.ndarray, variation: np.ndarray) -> Tensor:
        config = self._config
        if config.crop == "resized":
            height, width = images.shape[-2:]
            boxes = resized_crop_boxes(
                variation[:, _VARIATION_DRAWS:], height=height, width=width, scale=config.crop_scale
            )
            return resized_crop(images, boxes, hflip=draws[:, 2] < config.hflip, vflip=variation[:, 0] < config.vflip)
        return crop_and_flip(
            images,
            np.concatenate([draws[:, :_CROP_DRAWS], variation[:, :1]], axis=1),
            padding=config.crop_padding if config.crop == "pad" else 0.0,
            hflip=config.hflip,
            vflip=config.vflip,
        )


class Erasing:
    """Random erasing, after whatever else; see `trainables.erasing`."""

    on_cpu = False

    def __init__(self, config: TrialConfig, *, num_images: int) -> None:
        self._probability = config.erasing
        self._draws = SlotDraws(seed=config.seed, purpose=Purpose.ERASING, width=ERASING_DRAWS, num_slots=num_images)
        self._seed = config.seed
        self._epoch = 0
        self._noise: Tensor | None = None

    def start_epoch(self, epoch: int) -> None:
        self._draws.start_epoch(epoch)
        self._epoch, self._noise = epoch, None

    def __call__(self, images: Tensor, positions: Tensor) -> Tensor:
        if self._noise is None:  # the images' size is known with the first batch
            self._noise = self._make_noise(images)
        return erase(images, self._draws(positions.cpu().numpy()), probability=self._probability, noise=self._noise)

    def _make_noise(self, images: Tensor) -> Tensor:
        generator = np.random.Generator(purpose_stream(self._seed, self._epoch, Purpose.NOISE))
        return erasing_noise(generator, images.shape[1:]).to(images.device)


def jitter_factors(draws: np.ndarray, *, strength: float) -> np.ndarray:
    """(B, 4) float32 for `color_jitter`: three factors uniform in [1 - s, 1 + s], and a hue in [-s / 4, s / 4].

    Args:
        draws: (B, 4) float32 in [0, 1).
        strength: s, in [0, 1].
    """
    offsets = strength * (2 * draws - 1)
    factors: np.ndarray = np.concatenate([1 + offsets[:, :3], offsets[:, 3:] / 4], axis=1)
    return factors


def _policy(config: TrialConfig) -> tuple[int, Callable[[Tensor, np.ndarray], Tensor] | None]:
    """The numbers that the configured policy takes for an image, and the policy; 0 and None without one."""
    match config.augment:
        case "randaugment":
            num_ops, magnitude = config.randaugment_num_ops, config.randaugment_magnitude
            return 2 * num_ops, lambda images, draws: rand_augment(
                images, draws.reshape(len(draws), num_ops, 2), magnitude=magnitude
            )
        case "autoaugment":
            return AUTO_AUGMENT_DRAWS, auto_augment
        case "trivialaugment":
            return TRIVIAL_AUGMENT_DRAWS, trivial_augment
        case "augmix":
            severity, width = config.augmix_severity, config.augmix_width
            return aug_mix_draws(width), lambda images, draws: aug_mix(images, draws, severity=severity, width=width)
    return 0, None


def check_augment(config: TrialConfig, *, image_size: int, in_chans: int) -> None:
    """Tries the augmentation on a few random images, as a check before a search.

    Raises:
        ConfigError: if it cannot be built, fails on such images, or changes their size or type.
    """
    augment = build_augment(config, num_images=16)
    pixels = np.random.default_rng(0).integers(0, 256, (16, in_chans, image_size, image_size), dtype=np.uint8)
    augment.start_epoch(0)
    augment(torch.from_numpy(pixels), torch.arange(16))
