"""The searched network: every choice of its fields builds, keeps signals in range, and learns."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

from trainables.hyperparameters import Hyperparameters
from trainables.models import build_model, check_model


def build(*, in_chans: int = 3, image_size: int = 32, **fields: Any) -> nn.Module:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = Hyperparameters(arch="cnn", **fields)
    return build_model(config, num_classes=10, in_chans=in_chans, image_size=image_size)


@pytest.mark.parametrize(
    ("norm", "activation"), list(product(["batch", "group", "none"], ["relu", "leaky_relu", "gelu", "silu"]))
)
def test_signals_keep_their_size_through_ten_convolutions(norm: str, activation: str) -> None:
    model = build(cnn_norm=norm, cnn_activation=activation, cnn_stages=5, cnn_depth=2, cnn_width=8)
    with torch.no_grad():
        features = model.get_submodule("stages")(torch.randn(16, 3, 32, 32))
    assert features.isfinite().all()
    assert 0.02 < features.std() < 50


@pytest.mark.parametrize(
    ("image_size", "stages", "side"), [(4, 6, 2), (8, 3, 2), (28, 3, 7), (28, 4, 3), (28, 6, 3), (32, 1, 32), (5, 2, 2)]
)
def test_later_stages_halve_the_side_while_it_is_at_least_four(image_size: int, stages: int, side: int) -> None:
    model = build(image_size=image_size, cnn_stages=stages, cnn_depth=1, cnn_width=4)
    features = model.get_submodule("stages")(torch.randn(2, 3, image_size, image_size))
    assert features.shape == (2, 4 * 2 ** (stages - 1), side, side)


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize(("kernel", "in_chans", "width"), [(1, 1, 5), (11, 3, 6), (5, 1, 32)])
def test_odd_choices_train(norm: str, kernel: int, in_chans: int, width: int) -> None:
    model = build(in_chans=in_chans, image_size=8, cnn_norm=norm, cnn_kernel=kernel, cnn_width=width, dropout=0.2)
    model(torch.randn(2, in_chans, 8, 8)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_group_normalisation_does_not_mix_the_images_of_a_batch() -> None:
    images = torch.randn(6, 3, 32, 32)
    model = build(cnn_norm="group")
    with torch.no_grad():
        torch.testing.assert_close(model(images)[:2], model(images[:2]))


def test_depth_and_width_count() -> None:
    def parameters(**fields: int) -> int:
        return check_model(Hyperparameters(arch="cnn", **fields), num_classes=10, in_chans=3, image_size=32)

    assert parameters(cnn_stages=1, cnn_depth=1, cnn_width=16) == 3 * 16 * 9 + 2 * 16 + 17 * 10
    assert parameters(cnn_stages=6, cnn_depth=8, cnn_width=512) > 10**9  # takes no memory to know


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_learns_digits(norm: str) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    labels = torch.tensor(digits.target)
    model = build(in_chans=1, image_size=8, cnn_norm=norm, cnn_width=16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rows = torch.randperm(len(labels))
    for _ in range(3):
        for batch in rows[:1400].split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        right = model(images[rows[1400:]]).argmax(1) == labels[rows[1400:]]
    assert right.float().mean() > 0.93
