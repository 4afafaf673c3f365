"""Architectures: adapted to the task, checked before they are built, and honest about what they cannot do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainables.config import Hyperparameters
from trainables.errors import ModelError
from trainables.models import (
    build_model,
    check_model,
    count_parameters,
    input_statistics,
    split_decay_parameters,
)

TIMM = [
    "resnet18",
    "resnet10t",
    "mobilenetv3_small_050",
    "efficientnet_b0",
    "vit_tiny_patch16_224",
    "convnext_atto",
    "swin_tiny_patch4_window7_224",
    "deit_tiny_patch16_224",
]
TORCHVISION = [
    "torchvision/resnet18",
    "torchvision/mobilenet_v2",
    "torchvision/swin_t",
    "torchvision/squeezenet1_0",
    "torchvision/densenet121",
    "torchvision/efficientnet_b0",
    "torchvision/convnext_tiny",
    "torchvision/googlenet",
]
ONLY_CHECKED = ["torchvision/vit_b_16", "torchvision/vgg11", "torchvision/inception_v3"]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def build(arch: str, *, in_chans: int = 3, image_size: int = 32, seed: int = 0, **changes: Any) -> nn.Module:
    torch.manual_seed(seed)
    config = Hyperparameters(arch=arch, **changes)
    return build_model(config, num_classes=7, in_chans=in_chans, image_size=image_size)


@pytest.mark.parametrize("arch", ["small_cnn", *TIMM, *TORCHVISION])
def test_learns_from_a_batch_of_gray_images(arch: str) -> None:
    model = build(arch, in_chans=1, dropout=0.25)
    scores = model(torch.randn(2, 1, 32, 32))
    assert scores.shape == (2, 7)
    assert scores.dtype == torch.float32
    nn.functional.cross_entropy(scores, torch.tensor([0, 1])).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.eval()
    with torch.no_grad():
        assert model(torch.randn(1, 1, 32, 32)).shape == (1, 7)
    config = Hyperparameters(arch=arch, dropout=0.25)
    assert check_model(config, num_classes=7, in_chans=1, image_size=32) == count_parameters(model)


@pytest.mark.parametrize("arch", ONLY_CHECKED)
def test_checked_without_memory(arch: str) -> None:
    config = Hyperparameters(arch=arch, pretrained=True)  # asks for nothing on the network
    assert check_model(config, num_classes=5, in_chans=3, image_size=96) > 10**7


@pytest.mark.parametrize("arch", ["small_cnn", "resnet10t", "torchvision/resnet18", "torchvision/mobilenet_v2"])
def test_initialisation_repeats_with_the_seed(arch: str) -> None:
    first, again, other = (build(arch, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("arch", ["small_cnn", "resnet10t", "mobilenetv3_small_050", *TORCHVISION])
def test_dropout_reaches_the_model(arch: str) -> None:
    model = build(arch, dropout=0.37)
    layers = [module for module in model.modules() if isinstance(module, nn.Dropout) and module.p == 0.37]
    assert layers or getattr(model, "drop_rate", None) == 0.37


@pytest.mark.parametrize("image_size", [4, 8, 28, 64])
def test_small_cnn_takes_small_sides(image_size: int) -> None:
    config = Hyperparameters()
    assert check_model(config, num_classes=10, in_chans=1, image_size=image_size) < 200_000


def test_small_cnn_does_not_mix_the_images_of_a_batch() -> None:
    model = build("small_cnn")
    images = torch.randn(6, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(images)[:2], model(images[:2]))


def test_small_cnn_learns_digits(tmp_path: Path) -> None:
    from trainables.config import DataConfig, SplitConfig
    from trainables.data import load_data, make_splits

    data = load_data(DataConfig(name="digits"), cache_root=tmp_path)
    splits = make_splits(data, SplitConfig())
    images = torch.tensor(data.images).permute(0, 3, 1, 2).float() / 128 - 1
    labels = torch.from_numpy(data.labels)
    torch.manual_seed(0)
    model = build_model(Hyperparameters(), num_classes=10, in_chans=1, image_size=8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(3):
        for rows in torch.from_numpy(splits.train)[torch.randperm(len(splits.train))].split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        right = model(images[splits.val]).argmax(1) == labels[splits.val]
    assert right.float().mean() > 0.93


@pytest.mark.parametrize(
    ("arch", "image_size", "message"),
    [
        (
            "torchvision/alexnet",
            32,
            r"torchvision/alexnet: cannot be built for images of 32x32 px .* set a larger task",
        ),
        ("torchvision/vit_b_16", 40, "40x40 px"),
        ("vit_tiny_patch16_224", 8, "8x8 px"),
        ("torchvision/inception_v3", 64, "64x64 px"),
    ],
)
def test_images_that_do_not_fit(arch: str, image_size: int, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        check_model(Hyperparameters(arch=arch), num_classes=3, in_chans=3, image_size=image_size)


@pytest.mark.parametrize(
    ("arch", "pretrained", "message"),
    [
        ("resnet81", False, "unknown architecture 'resnet81'; did you mean resnet"),
        ("torchvision/resnet19", False, "did you mean torchvision/resnet1"),
        (
            "resnet18.nonsense",
            False,
            "resnet18 has no pretrained weights named 'nonsense'; use resnet18 alone or .*a1_in1k",
        ),
        ("small_cnn", True, "small_cnn: it has no pretrained weights"),
        ("vit_small_patch16_36x36_reg1", True, "unknown|no pretrained weights"),
    ],
)
def test_names_and_weights_that_do_not_exist(arch: str, pretrained: bool, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        check_model(Hyperparameters(arch=arch, pretrained=pretrained), num_classes=3, in_chans=3, image_size=32)


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        (
            "resnet10t",
            r"resnet10t: its pretrained weights are neither cached nor reachable, wanted timm/resnet10t\.c3_in1k",
        ),
        ("torchvision/resnet18", r"wanted https://download\.pytorch\.org/models/resnet18-.*set pretrained: false"),
    ],
)
def test_weights_out_of_reach_fail_fast(
    arch: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A closed port stands for a network that is down: nothing leaves the machine, whatever it is connected to.
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    from huggingface_hub import close_session, constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    close_session()  # the next one reads the proxies
    start = time.monotonic()
    with pytest.raises(ModelError, match=message):
        build(arch, pretrained=True)
    assert time.monotonic() - start < 20
    close_session()


def test_cached_torchvision_weights_are_adapted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import models

    weights = models.SqueezeNet1_1_Weights.DEFAULT
    torch.manual_seed(0)
    published = models.squeezenet1_1()
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    file = checkpoints / Path(weights.url).name
    torch.save(published.state_dict(), file)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    model = build("torchvision/squeezenet1_1", in_chans=1, pretrained=True, image_size=64)
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    torch.testing.assert_close(first.weight, published.features[0].weight.sum(1, keepdim=True))
    gray = torch.randn(2, 1, 64, 64)
    model.eval(), published.eval()
    with torch.no_grad():
        torch.testing.assert_close(model.features(gray), published.features(gray.expand(-1, 3, -1, -1)))


def test_input_statistics() -> None:
    data = ([0.1], [0.2])
    assert input_statistics(Hyperparameters(), data, 1) == data
    mean, std = input_statistics(Hyperparameters(arch="torchvision/resnet18", pretrained=True), data, 3)
    assert (mean, std) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    mean, std = input_statistics(Hyperparameters(arch="resnet18", pretrained=True), data, 1)
    assert mean == pytest.approx([0.449])
    assert std == pytest.approx([0.226])


def test_decay_spares_vectors_and_position_embeddings() -> None:
    model = build("vit_tiny_patch16_224")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, exempt = ([names[id(parameter)] for parameter in part] for part in split_decay_parameters(model))
    assert {"pos_embed", "cls_token", "head.bias", "norm.weight"} <= set(exempt)
    assert "head.weight" in decayed
    assert len(decayed) + len(exempt) == len(names)
