"""The averaged model: known values, every kind of tensor, exact resume."""

from __future__ import annotations

import gc
import io
import weakref

import pytest
import timm
import torch
from torch import Tensor, nn

from trainables.ema import Ema


class Everything(nn.Module):
    """A parameter, a statistic, a count, a constant with infinities, a flag."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("running_mean", torch.zeros(2))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]), persistent=False)
        self.register_buffer("flag", torch.tensor(False))

    def become(self, value: float) -> None:
        with torch.no_grad():
            self.weight.fill_(value)
            self.get_buffer("running_mean").fill_(-value)
            self.get_buffer("count").fill_(int(value))
            self.get_buffer("flag").fill_(value > 2)


def test_decay_is_warmed_up_and_bounded() -> None:
    model = Everything()
    ema = Ema(model, decay=0.2)
    expected = 0.0
    for done, value in enumerate((1.0, 2.0, 3.0, 5.0, 8.0)):
        model.become(value)
        ema.update(model)
        kept = 0.0 if done == 0 else min(0.2, (1 + done) / (10 + done))  # 2/11, then 0.2
        expected = kept * expected + (1 - kept) * value
        assert ema.module.get_parameter("weight").tolist() == pytest.approx([expected] * 2)
        assert ema.module.get_buffer("running_mean").tolist() == pytest.approx([-expected] * 2)
    assert ema.num_updates == 5
    assert ema.module.get_buffer("count").item() == 8
    assert ema.module.get_buffer("flag").item() is True
    assert ema.module.get_buffer("mask").tolist() == [0.0, -torch.inf]
    assert model.weight.tolist() == [8.0, 8.0]


def small_network() -> nn.Module:
    import timm

    torch.manual_seed(0)
    model: nn.Module = timm.create_model("resnet10t", num_classes=4)
    return model.to(memory_format=torch.channels_last)


def train(model: nn.Module, ema: Ema, *, steps: range) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model.train()
    for step in steps:
        torch.manual_seed(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.randn(8, 3, 32, 32)), torch.arange(8) % 4).backward()
        optimizer.step()
        ema.update(model)


def saved(state: object) -> dict[str, Tensor]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Tensor] = torch.load(file, weights_only=True)
    return loaded


def test_resumes_exactly() -> None:
    torch.set_num_threads(1)
    model = small_network()
    whole = Ema(model, decay=0.9)
    train(model, whole, steps=range(5))

    model = small_network()
    first = Ema(model, decay=0.9)
    train(model, first, steps=range(3))
    weights, state = saved(model.state_dict()), saved(first.state_dict())
    model = small_network()
    model.load_state_dict(weights)
    resumed = Ema(model, decay=0.9)
    resumed.load_state_dict(state)
    train(model, resumed, steps=range(3, 5))

    assert resumed.num_updates == whole.num_updates == 5
    expected = whole.module.state_dict()
    for name, value in resumed.module.state_dict().items():
        assert torch.equal(value, expected[name]), name
    moved = model.state_dict()
    assert not torch.equal(expected["bn1.running_mean"], moved["bn1.running_mean"])  # averaged
    assert expected["bn1.num_batches_tracked"] == moved["bn1.num_batches_tracked"] == 5  # copied


def test_is_a_model_to_evaluate() -> None:
    torch.set_num_threads(1)
    model = small_network()
    ema = Ema(model, decay=0.9)
    train(model, ema, steps=range(2))
    weight = ema.module.get_parameter("layer1.0.conv1.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    assert not any(module.training for module in ema.module.modules())
    assert not any(parameter.requires_grad for parameter in ema.module.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert set(ema.module.state_dict()) == set(model.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert not torch.equal(ema.module(images), model.eval()(images))


def test_constants_that_come_with_the_first_images_are_taken_over() -> None:
    model = timm.create_model("convit_tiny", img_size=32, patch_size=8, num_classes=3)
    ema = Ema(model, decay=0.9)  # before the network has seen an image
    with torch.no_grad():
        model(torch.randn(2, 3, 32, 32))
    ema.update(model)
    found, expected = (each.blocks[0].attn.rel_indices for each in (ema.module, model))
    assert torch.equal(found, expected) and expected.abs().sum() > 0


def test_is_freed_with_its_trial() -> None:
    model = Everything()
    ema = Ema(model, decay=0.9)
    ema.update(model)
    averaged = weakref.ref(ema.module)
    gc.collect()
    gc.disable()
    try:
        del ema
        assert averaged() is None  # no reference cycle keeps the weights until some later collection
    finally:
        gc.enable()
