"""Policies of the AutoAugment family: pixels are torchvision's operation by operation, and so is what is drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, ks_2samp
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode

from trainables import policies
from trainables.operations import Operations
from trainables.policies import aug_mix, aug_mix_draws, auto_augment, trivial_augment
from trainables.randaugment import _operations as rand_augment_operations
from trainables.randaugment import rand_augment

CPU = torch.device("cpu")
CIFAR = v2.AutoAugmentPolicy.CIFAR10
IMAGENET = v2.AutoAugmentPolicy.IMAGENET


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def random_images(count: int, *, channels: int = 3, side: int = 16) -> Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (count, channels, side, side), dtype=np.uint8)
    images = torch.from_numpy(pixels)
    images[0] = 90  # one value: no contrast to stretch
    images[1] //= 8  # dark
    images[2, :, ::2] = images[2, :, 1::2]
    return images


def apply_reference(images: Tensor, name: str, magnitude: float, interpolation: InterpolationMode) -> Tensor:
    reference = v2.RandAugment()
    result: Tensor = reference._apply_image_or_video_transform(images, name, magnitude, interpolation, reference._fill)
    return result


def check_operations(ours: Operations, space: dict[str, Any], *, bins: range, num_bins: int, side: int) -> None:
    """Every operation, magnitude and sign of a space, each image of a batch by another one."""
    interpolation = InterpolationMode.NEAREST if ours.matrices is None else InterpolationMode.BILINEAR
    cases = []
    for name, (magnitudes, signed) in space.items():
        values = magnitudes(num_bins, side, side)
        for number, each in enumerate(bins):
            value = 0.0 if values is None else float(values[each])
            cases += [(name, number, sign, value * (sign if signed else 1)) for sign in (1, -1)]
    for channels in (1, 3):
        for image in random_images(4, channels=channels, side=side):
            batch = image.repeat(len(cases), 1, 1, 1)
            out = ours(
                batch,
                np.array([ours.names.index(name) for name, *_ in cases]),
                bins=np.array([number for _, number, *_ in cases]),
                negative=np.array([sign < 0 for _, _, sign, _ in cases]),
            )
            for result, (name, _, _, magnitude) in zip(out, cases, strict=True):
                expected = apply_reference(image[None], name, magnitude, interpolation)[0]
                difference = (result.int() - expected.int()).abs()
                assert difference.max() <= (0 if interpolation is InterpolationMode.NEAREST else 1), (name, magnitude)
                assert (difference > 0).float().mean() < 0.05, (name, magnitude)


@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_randaugment_operations_are_torchvisions(magnitude: int) -> None:
    ours = rand_augment_operations(16, 16, magnitude, CPU)
    space = v2.RandAugment._AUGMENTATION_SPACE
    assert ours.names == tuple(space)
    check_operations(ours, space, bins=range(magnitude, magnitude + 1), num_bins=31, side=16)


def test_autoaugment_operations_are_torchvisions() -> None:
    policy = policies._auto_policy(16, 16, CPU)
    check_operations(policy.operations, v2.AutoAugment._AUGMENTATION_SPACE, bins=range(10), num_bins=10, side=16)


@pytest.mark.parametrize("tabulated", [True, False])
def test_trivialaugment_operations_are_torchvisions(tabulated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not tabulated:  # as for large images
        monkeypatch.setattr("trainables.operations._MOST_TABLE_ENTRIES", 0)
    ours = policies._trivial_operations.__wrapped__(32, 32, CPU)
    space = v2.TrivialAugmentWide._AUGMENTATION_SPACE
    assert ours.names == tuple(space)
    check_operations(ours, space, bins=range(31), num_bins=31, side=32)


def test_trivialaugment_moves_small_images_by_their_side_at_most() -> None:
    images = torch.full((4000, 1, 8, 8), 200, dtype=torch.uint8)
    draws = np.random.default_rng(0).random((4000, 3), dtype=np.float32)
    out = trivial_augment(images, draws).flatten(1)
    # torchvision's would be black in 1 of 9 cases: 24 of 31 bins of 2 of 14 operations.
    assert (out == 0).all(1).float().mean() < 0.03


@pytest.mark.parametrize("severity", [3, 10])
def test_augmix_operations_are_torchvisions(severity: int) -> None:
    ours = policies._aug_mix_operations(20, 20, severity, CPU)
    space = v2.AugMix._AUGMENTATION_SPACE
    assert set(ours.names) == {*space, "Identity"}
    check_operations(ours, space, bins=range(severity), num_bins=10, side=20)


# What torchvision applies to an image against what we do: (name, strength) of each operation.
Trace = Counter[tuple[str, float]]


def trace_reference(monkeypatch: pytest.MonkeyPatch, transform: Any, image: Tensor, *, count: int) -> Trace:
    seen: Trace = Counter()

    def note(_: Any, image: Tensor, name: str, magnitude: float, **__: Any) -> Tensor:
        seen[name, round(magnitude, 4)] += 1
        return image

    monkeypatch.setattr(type(transform), "_apply_image_or_video_transform", note)
    torch.manual_seed(0)
    for _ in range(count):
        transform(image)
    return seen


def trace_ours(
    monkeypatch: pytest.MonkeyPatch, augment: Callable[[Tensor, np.ndarray], Tensor], draws: np.ndarray, side: int
) -> Trace:
    seen: Trace = Counter()

    def note(self: Operations, images: Tensor, chosen: np.ndarray, *, bins: np.ndarray, negative: np.ndarray) -> Tensor:
        for row, each in zip(self.rows(chosen, bins=bins, negative=negative).tolist(), chosen.tolist(), strict=True):
            seen[self.names[each], round(float(self.magnitudes[row]), 4)] += 1
        return images

    monkeypatch.setattr(Operations, "__call__", note)
    augment(torch.zeros(len(draws), 1, side, side, dtype=torch.uint8), draws)
    return seen


def counts(traces: list[Trace], group: Callable[[tuple[str, float]], Any]) -> np.ndarray:
    """(traces, groups) how often each group of cases was seen."""
    groups = sorted({group(case) for trace in traces for case in trace})
    return np.array(
        [[sum(n for case, n in trace.items() if group(case) == each) for each in groups] for trace in traces]
    )


@pytest.mark.parametrize(
    ("ours", "num_draws", "reference", "side"),
    [
        (lambda x, draws: rand_augment(x, draws.reshape(-1, 2, 2), magnitude=9), 4, v2.RandAugment(2, 9), 32),
        (auto_augment, 5, v2.AutoAugment(CIFAR), 32),
        (auto_augment, 5, v2.AutoAugment(IMAGENET), 96),
        (trivial_augment, 3, v2.TrivialAugmentWide(), 32),
        (lambda x, draws: aug_mix(x, draws, severity=4, width=2), aug_mix_draws(2), v2.AugMix(4, 2), 32),
    ],
    ids=["randaugment", "autoaugment-cifar", "autoaugment-imagenet", "trivialaugment", "augmix"],
)
def test_operations_are_drawn_as_torchvision_does(
    ours: Any, num_draws: int, reference: Any, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 6000
    draws = np.random.default_rng(0).random((count, num_draws), dtype=np.float32)
    found = trace_ours(monkeypatch, ours, draws, side)
    expected = trace_reference(monkeypatch, reference, torch.zeros(1, side, side, dtype=torch.uint8), count=count)
    if all(name != "Identity" for name, _ in expected):  # an operation that was not applied
        found = Counter({case: times for case, times in found.items() if case[0] != "Identity"})
    strongest = {name: max(abs(each) for other, each in found if other == name) or 1 for name, _ in found | expected}
    table = counts([found, expected], lambda case: (case[0], round(3 * case[1] / strongest[case[0]])))
    assert chi2_contingency(table).pvalue > 1e-3
    assert table[0].sum() == pytest.approx(table[1].sum(), rel=0.02)


@pytest.mark.parametrize(
    ("ours", "num_draws", "reference"),
    [
        (lambda x, draws: rand_augment(x, draws.reshape(-1, 2, 2), magnitude=9), 4, v2.RandAugment(2, 9)),
        (auto_augment, 5, v2.AutoAugment(CIFAR)),
        (trivial_augment, 3, v2.TrivialAugmentWide()),
        (lambda x, draws: aug_mix(x, draws, severity=3, width=3), aug_mix_draws(3), v2.AugMix()),
    ],
    ids=["randaugment", "autoaugment", "trivialaugment", "augmix"],
)
def test_images_are_distributed_as_torchvisions(ours: Any, num_draws: int, reference: Any) -> None:
    count = 2000
    image = random_images(4, side=32)[3]
    draws = np.random.default_rng(1).random((count, num_draws), dtype=np.float32)
    mine = ours(image.repeat(count, 1, 1, 1), draws).float()
    torch.manual_seed(1)
    theirs = torch.stack([reference(image) for _ in range(count)]).float()
    # torchvision's AugMix cuts to whole values where we round: half a level.
    shift = 0.5 if isinstance(reference, v2.AugMix) else 0.0
    error = (mine.var(0) / count + theirs.var(0) / count).sqrt()
    z = (mine.mean(0) - theirs.mean(0) - shift) / error.clamp_min(1e-3)
    assert z.abs().max() < 5.5
    # Pixels move together, so that the mean square wanders more than for independent ones.
    assert z.pow(2).mean() < 3
    for statistic in (lambda x: x.flatten(1).mean(1), lambda x: x.flatten(1).std(1)):
        assert (
            ks_2samp(statistic(mine) - (shift if statistic(mine).mean() > 100 else 0), statistic(theirs)).pvalue > 1e-3
        )


def test_augmix_weights_are_dirichlet() -> None:
    draws = np.random.default_rng(0).random((5000, 3), dtype=np.float32)
    draws[0] = 0  # the least that can be drawn
    ours = policies._dirichlet(draws)
    torch.manual_seed(0)
    theirs = torch.distributions.Dirichlet(torch.ones(3)).sample((5000,)).numpy()
    np.testing.assert_allclose(ours.sum(1), 1, rtol=1e-5)
    for column in range(3):
        assert ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3
    assert ks_2samp(ours.max(1), theirs.max(1)).pvalue > 1e-3


def test_photographs_stay_recognisable() -> None:
    """On real photographs an augmented image is nearer to its own original than to others, whatever the policy."""
    folder = Path(__file__).parents[3] / "shared" / "data" / "cifar10-5k" / "test"
    if not folder.is_dir():
        pytest.skip("the CIFAR-10 images of shared/data are absent")
    from PIL import Image

    files = sorted(folder.glob("*/*.jpg"))[::10]
    images = (
        torch.from_numpy(np.stack([np.asarray(Image.open(file)) for file in files])).permute(0, 3, 1, 2).contiguous()
    )
    for ours, num_draws in (
        (lambda x, draws: rand_augment(x, draws.reshape(-1, 2, 2), magnitude=9), 4),
        (auto_augment, 5),
        (trivial_augment, 3),
        (lambda x, draws: aug_mix(x, draws, severity=3, width=3), aug_mix_draws(3)),
    ):
        draws = np.random.default_rng(2).random((len(images), num_draws), dtype=np.float32)
        out = ours(images, draws)
        correlation = np.corrcoef(out.flatten(1).numpy(), images.flatten(1).numpy())[: len(images), len(images) :]
        nearest = np.abs(np.nan_to_num(correlation)).argmax(1) == np.arange(len(images))
        assert nearest.mean() > 0.75
