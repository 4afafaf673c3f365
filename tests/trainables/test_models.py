"""Architectures: adapted to the task, checked before they are built, and honest about what they cannot do."""

from __future__ import annotations

import os
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainables.architectures import takes_drop_path
from trainables.errors import ModelError
from trainables.hyperparameters import Hyperparameters
from trainables.models import (
    InputSpec,
    auxiliary_weight,
    build_model,
    check_model,
    count_parameters,
    input_spec,
    shapes_fit,
    split_outputs,
)
from trainables.torchvision_models import published_weights

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
    "torchvision/mobilenet_v3_small",
    "torchvision/densenet121",
    "torchvision/efficientnet_b0",
    "torchvision/convnext_tiny",
    "torchvision/googlenet",
]
KERAS = "keras/EfficientNetB0"

# The named families at the side that they are used with, and the least that a quick pass needs.
GIANTS = [
    ("resnet50", 224, 32),
    ("resnet101", 224, 32),
    ("efficientnet_b4", 380, 64),
    ("efficientnet_b7", 600, 64),
    ("vgg16", 224, 32),
    ("vgg19_bn", 224, 32),
    ("inception_v3", 299, 299),
    ("mobilenetv2_100", 224, 32),
    ("mobilenetv3_large_100", 224, 32),
    ("vit_base_patch16_224", 224, 32),
    ("vit_large_patch16_224", 224, 32),
    ("vit_huge_patch14_224", 224, 28),
    ("deit_base_patch16_224", 224, 32),
    ("deit_base_distilled_patch16_224", 224, 32),
    ("swin_base_patch4_window7_224", 224, 64),
    ("convnext_base", 224, 32),
    ("torchvision/resnet50", 224, 32),
    ("torchvision/resnet101", 224, 32),
    ("torchvision/efficientnet_b4", 380, 64),
    ("torchvision/efficientnet_b7", 600, 64),
    ("torchvision/vgg16", 224, 32),
    ("torchvision/vgg19", 224, 32),
    ("torchvision/inception_v3", 299, 299),
    ("torchvision/mobilenet_v3_large", 224, 32),
    ("torchvision/vit_b_16", 224, 32),
    ("torchvision/vit_l_16", 224, 32),
    ("torchvision/vit_h_14", 224, 28),
    ("torchvision/swin_b", 224, 64),
    ("torchvision/convnext_base", 224, 32),
    ("torchvision/maxvit_t", 224, 224),
]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def build(arch: str, *, in_chans: int = 3, image_size: int = 32, seed: int = 0, **changes: Any) -> nn.Module:
    torch.manual_seed(seed)
    config = Hyperparameters(arch=arch, **changes)
    return build_model(config, num_classes=7, in_chans=in_chans, image_size=image_size)


def skip_without_keras() -> None:
    if find_spec("keras") is None:  # importing it here would settle its backend
        pytest.skip("the extra `keras` is not installed")


def assert_learns(model: nn.Module, images: torch.Tensor) -> None:
    scores, auxiliary = split_outputs(model(images))
    assert scores.dtype == torch.float32
    for each in (scores, *auxiliary):
        assert each.shape == (len(images), 7)
    labels = torch.arange(len(images))
    loss = sum(nn.functional.cross_entropy(each, labels) for each in (scores, *auxiliary))
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    model.eval()
    with torch.no_grad():
        assert model(images[:1]).shape == (1, 7)


@pytest.mark.parametrize("arch", ["small_cnn", "cnn", *TIMM, *TORCHVISION])
def test_learns_from_a_batch_of_gray_images(arch: str) -> None:
    model = build(arch, in_chans=1, dropout=0.25)
    assert_learns(model, torch.randn(2, 1, 32, 32))
    config = Hyperparameters(arch=arch, dropout=0.25)
    assert check_model(config, num_classes=7, in_chans=1, image_size=32) == count_parameters(model)


@pytest.mark.parametrize(("arch", "own_size", "_"), GIANTS)
def test_checked_without_memory(arch: str, own_size: int, _: int) -> None:
    rates = {"dropout": 0.1, "drop_path": 0.1 if takes_drop_path(arch) else 0.0}
    config = Hyperparameters(arch=arch, **rates)
    assert check_model(config, num_classes=5, in_chans=1, image_size=own_size) > 2 * 10**6


@pytest.mark.parametrize("arch", ["resnet50", "torchvision/vgg11"])
def test_checking_asks_for_nothing_on_the_network(arch: str) -> None:
    config = Hyperparameters(arch=arch, pretrained=True)
    assert check_model(config, num_classes=5, in_chans=3, image_size=96) > 10**7


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "_", "small_size"), GIANTS)
def test_giants_learn(arch: str, _: int, small_size: int) -> None:
    rates = {"dropout": 0.1, "drop_path": 0.1 if takes_drop_path(arch) else 0.0}
    model = build(arch, image_size=small_size, **rates)
    assert_learns(model, torch.randn(2, 3, small_size, small_size))


@pytest.mark.parametrize("arch", ["torchvision/inception_v3", "inception_v3", "torchvision/googlenet"])
def test_auxiliary_heads(arch: str) -> None:
    own = 224 if arch.endswith("googlenet") else 299
    with torch.device("meta"):
        model, images = build(arch, image_size=own, in_chans=1), torch.empty(2, 1, own, own)
        scores, auxiliary = split_outputs(model(images))
        assert [each.shape for each in auxiliary] == [(2, 7)] * (2 if own == 224 else 1)
        assert scores.shape == (2, 7)
        assert isinstance(model.eval()(images), torch.Tensor)
        if own == 299:  # one pixel less, and the head's 5x5 kernel no longer fits
            with pytest.raises(RuntimeError, match=r"[Kk]ernel size"):
                model.train()(torch.empty(2, 1, 298, 298))
            smaller = build(arch, image_size=298).train()
            assert isinstance(smaller(torch.empty(2, 3, 298, 298)), torch.Tensor)
    assert auxiliary_weight(arch) == (0.3 if own == 224 else 0.4)


def test_other_networks_have_no_auxiliary_heads() -> None:
    assert auxiliary_weight("resnet18") == auxiliary_weight("cnn") == auxiliary_weight("torchvision/vgg16") == 0
    scores = torch.zeros(2, 3)
    assert split_outputs(scores) == (scores, [])


@pytest.mark.parametrize("arch", [arch for arch in (*TIMM, *TORCHVISION, KERAS) if takes_drop_path(arch)])
def test_drop_path_is_the_highest_probability(arch: str) -> None:
    if arch == KERAS:
        skip_without_keras()

    def rates(drop_path: float) -> list[float]:
        with torch.device("meta"):
            model = build(arch, drop_path=drop_path)
        found = [getattr(each, "drop_prob", getattr(each, "p", None)) for each in model.modules() if is_drop_path(each)]
        return [float(each or 0.0) for each in found]

    # Blocks that have no way around them drop out of the row, so the deepest that is skipped may be one before.
    assert 0.2 < max(rates(0.3)) <= 0.3 + 1e-6
    assert max(rates(0.0), default=0.0) == 0.0


def is_drop_path(module: nn.Module) -> bool:
    return type(module).__name__ in ("DropPath", "StochasticDepth")


@pytest.mark.parametrize("arch", ["small_cnn", "cnn", "vgg16", "torchvision/resnet18"])
def test_drop_path_without_blocks_to_skip(arch: str) -> None:
    with pytest.raises(ModelError, match=f"{arch}: has no blocks that can be skipped; set drop_path: 0"):
        build(arch, drop_path=0.1)


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
    from trainables.data import load_data
    from trainables.splits import make_splits

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
            r"torchvision/alexnet: cannot be built for images of 32x32 px .* set a larger input_size",
        ),
        ("torchvision/vit_b_16", 40, "40x40 px"),
        ("vit_tiny_patch16_224", 8, "8x8 px"),
        ("vit_tiny_patch16_224", 40, "40x40 px, which its patches of 16 px do not fill; set input_size: 32"),
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
        ("efficientnet_b7", True, "give weights: PATH, or choose .*tf_efficientnet_b7"),
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
        (
            "torchvision/resnet18",
            r"wanted https://download\.pytorch\.org/models/resnet18-.*set pretrained: false .*weights: PATH",
        ),
    ],
)
def test_weights_out_of_reach_fail_fast(
    arch: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A closed port stands for a network that is down: nothing leaves the machine, whatever it is connected to.
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr(urllib.request, "_opener", None)  # made at the first request of a process, with its proxies
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


DATA = ([0.1], [0.2])


@pytest.mark.parametrize(
    ("choices", "in_chans", "wanted"),
    [
        ({}, 1, InputSpec(32, [0.1], [0.2], "bicubic")),
        ({"input_size": 48}, 1, InputSpec(48, [0.1], [0.2], "bicubic")),
        ({"arch": "resnet18"}, 1, InputSpec(32, [0.1], [0.2], "bicubic")),
        (
            {"arch": "torchvision/resnet18", "pretrained": True},
            3,
            InputSpec(224, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "bilinear"),
        ),
        (
            {"arch": "swin_base_patch4_window12_384", "pretrained": True},
            3,
            InputSpec(384, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "bicubic"),
        ),
        (
            {"arch": "vit_base_patch16_224.augreg_in21k", "pretrained": True, "input_size": 64},
            1,
            InputSpec(64, [0.5], [0.5], "bicubic"),
        ),
        (
            {"arch": "torchvision/inception_v3", "pretrained": True},
            3,
            InputSpec(299, [0.5] * 3, [0.5] * 3, "bilinear"),
        ),
    ],
)
def test_input_spec(choices: dict[str, Any], in_chans: int, wanted: InputSpec) -> None:
    assert input_spec(Hyperparameters(**choices), data_mean_std=DATA, in_chans=in_chans, image_size=32) == wanted


def test_gray_images_get_the_average_over_rgb() -> None:
    config = Hyperparameters(arch="resnet18", pretrained=True)
    spec = input_spec(config, data_mean_std=DATA, in_chans=1, image_size=32)
    assert spec.mean == pytest.approx([0.449])
    assert spec.std == pytest.approx([0.226])


def test_published_weights_run_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in torchvision's cache, as somebody may put it there, and torchvision itself would unpickle it."""
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # as some have it; torch.load refuses it with the other
    cached = tmp_path / "hub" / "checkpoints" / SqueezeNet1_1_Weights.DEFAULT.url.rsplit("/", 1)[1]
    cached.parent.mkdir(parents=True)
    state = squeezenet1_1().state_dict()
    torch.save(state, cached)
    found = published_weights("squeezenet1_1")
    assert all(torch.equal(found[name], value) for name, value in state.items())

    marker = tmp_path / "ran"

    class Code:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(marker),)

    torch.save({"weight": Code()}, cached)
    with pytest.raises(ModelError, match=f"torchvision/squeezenet1_1: {cached} holds more than tensors"):
        published_weights("squeezenet1_1")
    assert not marker.exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), torch.AcceleratorError("illegal")])
def test_what_a_device_lacks_is_not_said_of_the_network(error: RuntimeError) -> None:
    with pytest.raises(type(error)), shapes_fit("resnet18", image_size=32, in_chans=3):
        raise error
