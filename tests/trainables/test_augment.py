"""Augmentations: each image's result is its own, and pixels and distributions are torchvision's."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, ks_2samp
from torch import Tensor

from trainables.augment import build_augment, check_augment, jitter_factors
from trainables.color import color_jitter
from trainables.config import DataConfig, TrialConfig
from trainables.erasing import AREA, ERASING_DRAWS, RATIO, erase, erasing_boxes, erasing_noise
from trainables.errors import ConfigError
from trainables.geometry import BOX_DRAWS, crop_and_flip, resized_crop, resized_crop_boxes, rotate

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


def random_images(count: int, *, channels: int = 3, side: int | tuple[int, int] = 16) -> Tensor:
    height, width = (side, side) if isinstance(side, int) else side
    pixels = np.random.default_rng(0).integers(0, 256, (count, channels, height, width), dtype=np.uint8)
    return torch.from_numpy(pixels)


# Every stage on, of which the policy is one; `none` and pipelines take the erasing only.
VARIED = {"vflip": 0.5, "rotation": 30.0, "color_jitter": 0.5, "erasing": 0.5}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("augment", "changes"),
    [
        ("none", {}),
        ("basic", {}),
        ("basic", {"crop": "resized", **VARIED}),
        ("randaugment", {"crop": "none"}),
        ("autoaugment", VARIED),
        ("trivialaugment", {"crop": "resized"}),
        ("augmix", VARIED),
        ("mixed", {}),
        ("mixed", {"erasing": 0.9}),
    ],
)
def test_results_depend_on_seed_epoch_and_slot_only(augment: str, changes: dict[str, Any], channels: int) -> None:
    images = random_images(48, channels=channels)
    before = images.clone()
    positions = torch.arange(48)
    whole = build_augment(config(augment, seed=5, **changes), num_images=48)
    whole.start_epoch(3)
    expected = whole(images, positions)
    assert expected.shape == images.shape
    assert expected.dtype == torch.uint8
    assert torch.equal(images, before)

    # Another object for an epoch of more slots, other batches in another order, after other epochs.
    other = build_augment(config(augment, seed=5, **changes), num_images=480)
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
        reseeded = build_augment(config(augment, seed=6, **changes), num_images=48)
        reseeded.start_epoch(3)
        assert not torch.equal(reseeded(images, positions), expected)


def test_one_stage_does_not_disturb_another() -> None:
    images = random_images(32)
    found = []
    for changes in ({}, {"erasing": 0.5}):
        augment = build_augment(config("randaugment", **changes), num_images=32)
        augment.start_epoch(0)
        found.append(augment(images, torch.arange(32)))
    plain, erased = found
    untouched = (plain == erased).flatten(1).all(1)
    assert 5 < untouched.sum() < 27  # the others differ where they are erased
    assert (plain != erased).any(1).float().mean() < 0.33


def test_large_batches_are_those_of_their_parts() -> None:
    # More values than are augmented at once, and more slots than are drawn at once.
    images = random_images(6, side=512).repeat(2, 1, 1, 1)
    positions = torch.tensor([0, 4095, 4096, 9000, 12287, 12288, 1, 4097, 2, 3, 5, 20000])
    augment = build_augment(config("augmix", rotation=10.0), num_images=50_000)
    augment.start_epoch(1)
    whole = augment(images, positions)
    for row in (0, 2, 5, 11):
        assert torch.equal(augment(images[row : row + 1], positions[row : row + 1])[0], whole[row])


def test_crop_and_flip_by_hand() -> None:
    images = random_images(4, side=8)
    # Down, right, flips of: the padded image's top left; the middle, mirrored; the bottom right; upside down.
    draws = np.array(
        [[0, 0, 0.9, 0.9], [0.5, 0.5, 0.1, 0.9], [0.999, 0.999, 0.9, 0.9], [0.5, 0.5, 0.9, 0.1]], np.float32
    )
    out = crop_and_flip(images, draws, padding=0.25, hflip=0.5, vflip=0.5)
    assert torch.equal(out[0, :, 2:, 2:], images[0, :, :-2, :-2])
    assert not out[0, :, :2].any()
    assert torch.equal(out[1], images[1].flip(-1))
    assert torch.equal(out[2, :, :-2, :-2], images[2, :, 2:, 2:])
    assert not out[2, :, :, -2:].any()
    assert torch.equal(out[3], images[3].flip(-2))


@pytest.mark.parametrize("padding", [0.0, 0.25])
@pytest.mark.parametrize("flip", [0.0, 0.5])
def test_crops_and_erased_images_do_not_depend_on_the_layout_in_memory(padding: float, flip: float) -> None:
    images = random_images(7, side=8)
    last = images.contiguous(memory_format=torch.channels_last)
    draws = np.random.default_rng(0).random((7, ERASING_DRAWS), dtype=np.float32)
    noise = erasing_noise(np.random.default_rng(0), images.shape[1:])
    for each in (images, last):
        kept = each.clone()
        out = crop_and_flip(each, draws[:, :4], padding=padding, hflip=flip, vflip=flip)
        assert torch.equal(out, crop_and_flip(images, draws[:, :4], padding=padding, hflip=flip, vflip=flip))
        assert torch.equal(out, images) == (padding == flip == 0)
        erased = erase(each, draws, probability=0.5, noise=noise)
        assert torch.equal(erased, erase(images, draws, probability=0.5, noise=noise))
        assert torch.equal(each, kept)
        for new in (out, erased):
            assert new.is_contiguous(memory_format=torch.channels_last)


def test_crop_offsets_and_flips_are_uniform() -> None:
    count = 9000
    images = torch.zeros(count, 1, 8, 8, dtype=torch.uint8)
    images[:, :, 3, 3] = 255
    augment = build_augment(config("basic", hflip=0.25, vflip=0.5, crop_padding=0.125), num_images=count)
    augment.start_epoch(0)
    out = augment(images, torch.arange(count))
    row, column = np.unravel_index(out.view(count, -1).argmax(1).numpy(), (8, 8))
    # 3 offsets each way; a flip moves place 3 to 4.
    upright, flipped = np.array([1, 1, 1, 0]) / 3, np.array([0, 1, 1, 1]) / 3
    for found, flip in ((row, 0.5), (column, 0.25)):
        expected = count * ((1 - flip) * upright + flip * flipped)
        assert chisquare(np.bincount(found, minlength=6)[2:6], expected).pvalue > 1e-3


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 40), (20, 60)])
def test_resized_crops_are_torchvisions(height: int, width: int) -> None:
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    image = torch.zeros(1, height, width)
    theirs = np.array([RandomResizedCrop.get_params(image, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)])
    draws = np.random.default_rng(0).random((4000, BOX_DRAWS), dtype=np.float32)
    ours = resized_crop_boxes(draws, height=height, width=width, scale=0.2)
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= (height, width)).all()
    assert_same_boxes(ours, theirs)

    from torchvision.transforms.v2 import functional as tv

    images = random_images(40, side=(height, width))
    out = resized_crop(images, theirs[:40], vflip=np.arange(40) % 2 == 0)
    for row, (top, left, box_height, box_width) in enumerate(theirs[:40].tolist()):
        expected = tv.resized_crop(images[row].float(), top, left, box_height, box_width, [height, width]).round()
        assert_close(out[row], expected.flip(-2) if row % 2 == 0 else expected)


def test_a_crop_has_a_pixel_at_least() -> None:
    boxes = resized_crop_boxes(np.zeros((1, BOX_DRAWS), np.float32), height=8, width=8, scale=0.002)
    assert boxes[0, 2:].tolist() == [1, 1]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 60), (8, 8)])
def test_erased_boxes_are_torchvisions(height: int, width: int) -> None:
    from torchvision.transforms import RandomErasing

    torch.manual_seed(0)
    image = torch.zeros(1, height, width)
    found = [RandomErasing.get_params(image, AREA, RATIO, [0.0])[:4] for _ in range(4000)]
    theirs = np.array([(0, 0, 0, 0) if box[2:] == (height, width) else box for box in found])
    draws = np.random.default_rng(0).random((4000, BOX_DRAWS), dtype=np.float32)
    assert_same_boxes(erasing_boxes(draws, height=height, width=width), theirs)


def test_erasing_fills_a_rectangle_with_noise() -> None:
    count = 4000
    images = torch.full((count, 3, 16, 16), 77, dtype=torch.uint8)
    augment = build_augment(config("none", erasing=0.3), num_images=count)
    augment.start_epoch(0)
    out = augment(images, torch.arange(count))
    changed = (out != images).any(1)
    assert changed.flatten(1).any(1).float().mean() == pytest.approx(0.3, abs=0.025)
    for mask in changed[changed.flatten(1).any(1)][:200]:
        rows, columns = mask.any(1), mask.any(0)
        box = rows[:, None] & columns
        # A noise pixel equals the image's in all three channels only once in millions.
        assert torch.equal(mask, box)
        assert not (rows.all() or columns.all())
        assert rows.nonzero().diff(dim=0).le(1).all()
    noise = out.movedim(1, -1)[changed].numpy().ravel()
    assert noise.mean() == pytest.approx(127.5, abs=2)
    assert noise.std() == pytest.approx(73.9, abs=2)  # uniform from 0 to 255
    assert np.unique(out[changed.flatten(1).any(1)].flatten(1), axis=0).shape[0] > 1150  # no two are alike


def test_rotation_is_torchvisions() -> None:
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as tv

    images = random_images(40, side=(16, 24))
    degrees = np.linspace(-180, 180, 40)
    for image, angle, rotated in zip(images, degrees, rotate(images, degrees), strict=True):
        assert_close(rotated, tv.rotate(image, float(angle), InterpolationMode.BILINEAR))


@pytest.mark.parametrize("channels", [1, 3])
def test_color_jitter_is_torchvisions(channels: int) -> None:
    from torchvision.transforms.v2 import functional as tv

    images = random_images(60, channels=channels)
    images[0], images[1, 0] = 90, 200  # without hue, and with one hue
    factors = np.random.default_rng(1).uniform([0, 0, 0, -0.5], [2, 2, 2, 0.5], (60, 4)).astype(np.float32)
    factors[:8, :3], factors[4:12, 3] = 1, 0
    out = color_jitter(images, torch.from_numpy(factors))
    for image, (brightness, contrast, saturation, hue), ours in zip(images, factors.tolist(), out, strict=True):
        expected = tv.adjust_brightness(image.float() / 255, brightness)
        expected = tv.adjust_saturation(tv.adjust_contrast(expected, contrast), saturation)
        assert_close(ours, (tv.adjust_hue(expected, hue) * 255).round())


def test_jitter_and_rotation_are_drawn_as_torchvision_does() -> None:
    from torchvision.transforms import ColorJitter, RandomRotation

    torch.manual_seed(0)
    reference = ColorJitter(0.4, 0.4, 0.4, 0.1)
    ranges = (reference.brightness, reference.contrast, reference.saturation, reference.hue)
    theirs = np.array([ColorJitter.get_params(*ranges)[1:] for _ in range(3000)])
    ours = jitter_factors(np.random.default_rng(0).random((3000, 4), dtype=np.float32), strength=0.4)
    for column in range(4):
        assert ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3

    # The angle as it arrives: a dot above the middle of a large image moves by its sine.
    count, side = 2000, 65
    images = torch.zeros(count, 1, side, side, dtype=torch.uint8)
    images[:, :, 1:4, 31:34] = 255
    augment = build_augment(config("basic", crop="none", hflip=0.0, rotation=30.0), num_images=count)
    augment.start_epoch(0)
    columns = augment(images, torch.arange(count))[:, 0].float().sum(1)
    moved = (columns * torch.arange(side)).sum(1) / columns.sum(1) - 32
    angles = [RandomRotation.get_params([-30.0, 30.0]) for _ in range(count)]
    assert ks_2samp(np.degrees(np.arcsin(-moved.numpy() / 30)), angles).pvalue > 1e-3


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    """Equal to within one level, and outright but where a result lies halfway between two levels."""
    difference = (ours.float() - theirs.float()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() <= 0.05


def assert_same_boxes(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Tops, lefts, heights, widths and areas (N, 4) of one distribution."""
    for column in range(4):
        assert ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3
    assert ks_2samp(ours[:, 2:].prod(1), theirs[:, 2:].prod(1)).pvalue > 1e-3


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
