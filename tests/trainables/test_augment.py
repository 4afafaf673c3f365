"""Augmentations: each image's result is its own, and the distributions are those that are promised."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trainables.augment import build_augment, check_augment, crop_and_flip
from trainables.config import DataConfig, TrialConfig
from trainables.errors import ConfigError
from trainables.randaugment import _operations, rand_augment

PIPELINES: dict[str, Any] = {
    "mixed": (
        "HorizontalFlip",
        {"Affine": {"rotate": [-10, 10], "translate_percent": [-0.1, 0.1], "p": 1.0}},
        {"OneOf": {"transforms": ["GaussNoise", {"RandomBrightnessContrast": {"p": 1.0}}], "p": 0.9}},
        {"SomeOf": {"transforms": ["VerticalFlip", {"CoarseDropout": {"p": 1.0, "fill": "random"}}], "n": 1}},
        {"Sequential": {"transforms": [{"GridDistortion": {"p": 1.0}}, "MotionBlur"], "p": 0.5}},
    )
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def config(augment: str, **changes: Any) -> TrialConfig:
    return TrialConfig(data=DataConfig(name="digits"), augment=augment, augmentations=PIPELINES, **changes)


def random_images(count: int, *, channels: int = 3, side: int = 16) -> Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (count, channels, side, side), dtype=np.uint8)
    return torch.from_numpy(pixels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augment", ["none", "basic", "randaugment", "mixed"])
def test_results_depend_on_seed_epoch_and_image_only(augment: str, channels: int) -> None:
    images = random_images(48, channels=channels)
    before = images.clone()
    positions = torch.arange(48)
    whole = build_augment(config(augment, seed=5), num_images=48)
    whole.start_epoch(3)
    expected = whole(images, positions)
    assert expected.shape == images.shape
    assert expected.dtype == torch.uint8
    assert torch.equal(images, before)

    # Another object, other batches in another order, after other epochs.
    other = build_augment(config(augment, seed=5), num_images=48)
    other.start_epoch(0)
    other(images[:5], positions[:5])
    other.start_epoch(3)
    for rows in torch.from_numpy(np.random.default_rng(1).permutation(48)).split([1, 7, 29, 11]):
        channels_last = images[rows].contiguous(memory_format=torch.channels_last)
        assert torch.equal(other(channels_last, positions[rows]), expected[rows])

    if augment != "none":
        assert not torch.equal(expected, images)
        other.start_epoch(4)
        assert not torch.equal(other(images, positions), expected)
        reseeded = build_augment(config(augment, seed=6), num_images=48)
        reseeded.start_epoch(3)
        assert not torch.equal(reseeded(images, positions), expected)


def test_crop_and_flip_by_hand() -> None:
    images = random_images(3, side=8)
    # Down, right and flip of: the padded image's top left; the middle, flipped; the bottom right.
    draws = np.array([[0.0, 0.0, 0.9], [0.5, 0.5, 0.1], [0.999, 0.999, 0.9]], np.float32)
    out = crop_and_flip(images, draws, padding=0.25, hflip=0.5)
    assert torch.equal(out[0, :, 2:, 2:], images[0, :, :-2, :-2])
    assert not out[0, :, :2].any()
    assert torch.equal(out[1], images[1].flip(-1))
    assert torch.equal(out[2, :, :-2, :-2], images[2, :, 2:, 2:])
    assert not out[2, :, :, -2:].any()


def test_crop_offsets_and_flips_are_uniform() -> None:
    count = 9000
    images = torch.zeros(count, 1, 8, 8, dtype=torch.uint8)
    images[:, :, 3, 3] = 255
    augment = build_augment(config("basic", hflip=0.25, crop_padding=0.125), num_images=count)
    augment.start_epoch(0)
    out = augment(images, torch.arange(count))
    row, column = np.unravel_index(out.view(count, -1).argmax(1).numpy(), (8, 8))
    # 3 offsets each way; a flip moves column 3 to 4.
    np.testing.assert_allclose(np.bincount(row)[2:5] / count, [1 / 3] * 3, atol=0.02)
    expected = np.array([0.75, 0.75, 0.75, 0]) / 3 + np.array([0, 0.25, 0.25, 0.25]) / 3
    np.testing.assert_allclose(np.bincount(column, minlength=6)[2:6] / count, expected, atol=0.02)


@pytest.mark.parametrize("magnitude", [0, 9, 30])
@pytest.mark.parametrize("channels", [1, 3])
def test_randaugment_operations_are_torchvisions(channels: int, magnitude: int) -> None:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import RandAugment

    reference = RandAugment(magnitude=magnitude)
    images = random_images(5, channels=channels)
    space = reference._AUGMENTATION_SPACE
    ours = _operations(16, 16, magnitude)
    assert len(ours) == len(space)
    for number, ((name, (magnitudes, signed)), (apply, strength, draws_sign)) in enumerate(
        zip(space.items(), ours, strict=True)
    ):
        assert signed == draws_sign
        values = magnitudes(31, 16, 16)
        theirs = 0.0 if values is None else float(values[magnitude])
        for sign in (1, -1) if signed else (1,):
            expected = reference._apply_image_or_video_transform(
                images, name, sign * theirs, InterpolationMode.NEAREST, {torch.Tensor: None}
            )
            assert torch.equal(apply(images, sign * strength), expected), (name, sign)
            # The same through the tables: a draw in the middle of the operation's share.
            draws = np.full((5, 1, 2), [(number + 0.5) / len(ours), 0.75 if sign > 0 else 0.25], np.float32)
            assert torch.equal(rand_augment(images.clone(), draws, magnitude=magnitude), expected), (name, sign)


def test_randaugment_distribution_is_torchvisions() -> None:
    from torchvision.transforms.v2 import RandAugment

    count = 4000
    image = random_images(1)
    draws = np.random.default_rng(0).random((count, 2, 2), dtype=np.float32)
    ours = rand_augment(image.repeat(count, 1, 1, 1), draws, magnitude=9).float()
    torch.manual_seed(0)
    reference = RandAugment(num_ops=2, magnitude=9)
    theirs = torch.stack([reference(image[0]) for _ in range(count)]).float()
    # The mean of each pixel, within a few standard errors of the difference.
    error = (ours.var(0) / count + theirs.var(0) / count).sqrt()
    z = (ours.mean(0) - theirs.mean(0)) / error.clamp_min(1e-3)
    assert z.abs().max() < 5
    assert z.pow(2).mean() < 2
    same = [float((x == image[0]).flatten(1).all(1).float().mean()) for x in (ours, theirs)]
    assert same[0] == pytest.approx(same[1], abs=0.02)  # both operations were the identity, or acted as such


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        (
            ["HorizontalFlp"],
            r"augmentations\.mine\[0\]: albumentations has no transform 'HorizontalFlp'; did you mean Hor",
        ),
        ([{"Affine": {"rotation": 3}}], r"mine\[0\]: Affine has no argument 'rotation'; valid are .*rotate"),
        ([{"HorizontalFlip": {"p": 2}}], r"mine\[0\]: HorizontalFlip refuses its arguments: p: Input should be less"),
        ([{"OneOf": {"transforms": ["Nix"]}}], r"mine\[0\]\.OneOf\.transforms\[0\]: albumentations has no transform"),
        ([{"OneOf": {"transforms": []}}], "must be a list of transforms"),
        (["Compose"], "no transform 'Compose'"),
        ([{"Resize": {"height": 4, "width": 4}}], r"must keep shape and type .* got \(4, 4, 3\) uint8; leave out"),
        ([{"Normalize": {"p": 1.0}}], r"must keep shape and type .* float32"),
        ([{"HistogramMatching": {"p": 1.0}}], "mine"),
    ],
)
def test_bad_pipelines(pipeline: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_augment(
            TrialConfig(data=DataConfig(name="digits"), augment="mine", augmentations={"mine": tuple(pipeline)}),
            image_size=16,
            in_chans=3,
        )


def test_a_colour_transform_refuses_gray_images() -> None:
    bad = TrialConfig(data=DataConfig(name="digits"), augment="mine", augmentations={"mine": ({"ToGray": {"p": 1.0}},)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            check_augment(bad, image_size=8, in_chans=1)
        except ConfigError as error:
            assert "augmentations.mine: the pipeline fails on an image of shape (8, 8, 1)" in str(error)
