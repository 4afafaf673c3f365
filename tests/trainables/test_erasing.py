"""Random erasing on a CPU, box by box, and as a GPU does it: the same images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainables import erasing
from trainables.erasing import ERASING_DRAWS, erase, erasing_noise


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (3, 24, 40), (1, 28, 20)])
@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_both_ways_give_the_same_images(
    shape: tuple[int, int, int], probability: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    images = torch.from_numpy(generator.integers(0, 256, (64, *shape), dtype=np.uint8))
    draws = generator.random((64, ERASING_DRAWS), dtype=np.float32)
    noise = erasing_noise(generator, torch.Size(shape))
    before = images.clone()
    here = erase(images, draws, probability=probability, noise=noise)
    monkeypatch.setattr(erasing, "_one_by_one", erasing._all_at_once)
    assert torch.equal(here, erase(images, draws, probability=probability, noise=noise))
    assert torch.equal(images, before), "the given images stay as they are"
    changed = (here != images).flatten(1).any(1).float().mean().item()
    assert changed == pytest.approx(probability, abs=0.15)
