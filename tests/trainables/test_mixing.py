"""Mixup and CutMix: exact arithmetic, torchvision's distributions, the same on every worker."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torchvision.transforms import v2

from trainables.config import DataConfig, TrialConfig
from trainables.mixing import Mix, draw_mix, mix_images, mix_targets


def config(**changes: Any) -> TrialConfig:
    return TrialConfig(data=DataConfig(name="digits"), **changes)


def draw_many(count: int, **changes: Any) -> list[Mix | None]:
    trial = config(**changes)
    return [draw_mix(trial, epoch=step % 7, step=step // 7, height=24, width=32) for step in range(count)]


@pytest.mark.parametrize(("alpha", "transform"), [(0.2, v2.MixUp), (1.0, v2.CutMix), (0.5, v2.CutMix)])
def test_shares_are_torchvisions(alpha: float, transform: Any) -> None:
    torch.manual_seed(0)
    images = torch.zeros(2, 3, 24, 32)
    reference = transform(alpha=alpha, num_classes=2)
    expected = [reference.make_params([images]) for _ in range(3000)]
    cuts = transform is v2.CutMix
    found = [mix for mix in draw_many(3000, **{"cutmix_alpha" if cuts else "mixup_alpha": alpha}) if mix is not None]
    assert len(found) == 3000
    theirs = [each["lam_adjusted" if cuts else "lam"] for each in expected]
    assert ks_2samp([mix.lam for mix in found], theirs).pvalue > 1e-3
    if not cuts:
        assert all(mix.box is None for mix in found)
        return
    boxes = np.array([mix.box for mix in found])  # top, left, bottom, right
    for column, place in ((0, 1), (1, 0), (2, 3), (3, 2)):
        assert ks_2samp(boxes[:, column], [each["box"][place] for each in expected]).pvalue > 1e-3


def test_how_often_which() -> None:
    both = draw_many(3000, mixup_alpha=0.4, cutmix_alpha=1.0, mix_prob=0.6)
    mixups = sum(mix is not None and mix.box is None for mix in both)
    cutmixes = sum(mix is not None and mix.box is not None for mix in both)
    assert mixups / 3000 == pytest.approx(0.3, abs=0.03)
    assert cutmixes / 3000 == pytest.approx(0.3, abs=0.03)
    assert all(mix is not None for mix in draw_many(200, mixup_alpha=0.4, cutmix_alpha=1.0))
    assert not any(draw_many(50))
    assert not any(draw_many(50, mixup_alpha=1.0, mix_prob=0.0))


def test_a_draw_depends_on_seed_epoch_and_step_only() -> None:
    def draw(seed: int, epoch: int, step: int) -> Mix | None:
        return draw_mix(config(cutmix_alpha=1.0, seed=seed), epoch=epoch, step=step, height=24, width=32)

    assert draw(1, 2, 3) == draw(1, 2, 3)
    assert len({draw(1, 2, 3), draw(2, 2, 3), draw(1, 3, 3), draw(1, 2, 4), draw(1, 3, 2)}) == 5


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_mixup_is_exact(dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8))
    images = pixels.to(dtype).contiguous(memory_format=memory_format)
    before = images.clone()
    mixed = mix_images(images, images.flip(0), Mix(0.7))
    assert torch.equal(images, before)
    assert mixed.dtype == torch.float32
    assert mixed.is_contiguous(memory_format=memory_format)
    expected = 0.7 * pixels.double() + 0.3 * pixels.flip(0).double()
    torch.testing.assert_close(mixed.double(), expected, rtol=0, atol=1e-4)
    # Normalised afterwards or before is the same.
    normalised = (pixels.float() - 120) / 60
    torch.testing.assert_close((mixed - 120) / 60, 0.7 * normalised + 0.3 * normalised.flip(0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_cutmix_pastes_the_box_and_its_share(dtype: torch.dtype) -> None:
    images = torch.zeros(3, 1, 24, 32, dtype=dtype)
    for mix in draw_many(60, cutmix_alpha=1.0):
        assert mix is not None
        mixed = mix_images(images, images + 1, mix)
        assert mixed.dtype == dtype
        assert not images.any()
        assert float(mixed.float().mean()) == pytest.approx(1 - mix.lam, abs=1e-6)


def test_a_batch_over_two_workers_is_that_of_one() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 3, 24, 32), dtype=np.uint8))
    labels = torch.arange(8) % 3
    for mix in (*draw_many(4, cutmix_alpha=1.0), Mix(0.4)):
        assert mix is not None
        whole = mix_images(images, images.flip(0), mix)
        targets = mix_targets(labels, labels.flip(0), mix, num_classes=3)
        for rank in (0, 1):
            share = mix_images(images[rank::2], images.flip(0)[rank::2], mix)
            assert torch.equal(share, whole[rank::2])
            mine = mix_targets(labels[rank::2], labels.flip(0)[rank::2], mix, num_classes=3)
            assert torch.equal(mine, targets[rank::2])


def test_targets() -> None:
    mixed = mix_targets(torch.tensor([0, 2]), torch.tensor([1, 2]), Mix(0.75), num_classes=3)
    torch.testing.assert_close(mixed, torch.tensor([[0.75, 0.25, 0.0], [0.0, 0.0, 1.0]]))
    several = torch.tensor([[1.0, 1.0, 0.0]])
    mixed = mix_targets(several, torch.tensor([[0.0, 1.0, 1.0]]), Mix(0.75), num_classes=3)
    torch.testing.assert_close(mixed, torch.tensor([[0.75, 1.0, 0.25]]))
