"""Keras Applications: the same numbers as Keras gives, and networks that train, copy and restore like any of torch."""

from __future__ import annotations

import copy
import random
import sys
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainables import keras_models
from trainables.errors import ModelError
from trainables.keras_models import KerasNetwork, build, convert, input_spec_of
from trainables.keras_names import known_names, takes_drop_path

pytestmark = pytest.mark.skipif(find_spec("keras") is None, reason="needs the extra keras")

# One for each way in which Keras prepares images, and for most kinds of layer; the rest are slow.
REPRESENTATIVE = [
    "ConvNeXtTiny",
    "DenseNet121",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "MobileNetV2",
    "MobileNetV3Small",
    "ResNet50",
    "VGG16",
]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def network(name: str = "MobileNetV3Small", *, seed: int = 0, **changes: Any) -> KerasNetwork:
    torch.manual_seed(seed)
    options = {"pretrained": False, "num_classes": 7, "in_chans": 3, "image_size": 32, "dropout": 0.0}
    return build(name, **(options | changes))


def keras_application(keras: Any, name: str, size: int) -> Any:
    """With statistics that make normalisation matter."""
    with keras.device("cpu"):
        keras.utils.set_random_seed(0)
        application = getattr(keras.applications, name)(
            include_top=False, weights=None, input_shape=(size, size, 3), pooling="avg"
        )
        for layer in application.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.moving_mean.assign(torch.randn(layer.moving_mean.shape) * 0.1)
                layer.moving_variance.assign(torch.rand(layer.moving_variance.shape) + 0.5)
            if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None:
                layer.adapt_mean.assign(torch.tensor([0.4, 0.5, 0.3]))
                layer.adapt_variance.assign(torch.tensor([0.2, 0.3, 0.25]))
                layer.finalize_state()
    return application


def prepared_by_keras(keras: Any, name: str, pixels: Tensor) -> Tensor:
    module = sys.modules[getattr(keras.applications, name).__module__]
    with keras.device("cpu"):
        prepared: Tensor = module.preprocess_input(pixels.permute(0, 2, 3, 1).clone(), data_format="channels_last")
    return prepared


def normalised(name: str, pixels: Tensor) -> Tensor:
    _, mean, std, _ = input_spec_of(name)
    return (pixels / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def assert_same_as_keras(name: str, *, size: int) -> None:
    keras = keras_models._import_keras(name)
    application = keras_application(keras, name, size)
    ours = convert(application, name=name, published=True, num_classes=3, dropout=0.5).eval()
    pixels = torch.randint(0, 256, (2, 3, size, size), generator=torch.Generator().manual_seed(1)).float()
    with torch.no_grad(), keras.device("cpu"):
        prepared = prepared_by_keras(keras, name, pixels)
        expected = application(prepared, training=False)
        disturbed = application(prepared * (1 + 1e-6), training=False)
        found = ours.features(normalised(name, pixels))
    # Some untrained networks blow rounding errors up; no agreement can be closer than theirs with themselves.
    tolerance = 1e-5 * expected.abs().max() + 10 * (expected - disturbed).abs().max()
    assert (found - expected).abs().max() <= tolerance
    assert expected.std() > 0


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_gives_what_keras_gives(name: str) -> None:
    assert_same_as_keras(name, size=33)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(known_names()))
def test_every_application_gives_what_keras_gives(name: str) -> None:
    assert_same_as_keras(name, size=96)
    keras = keras_models._import_keras(name)
    with keras.device("meta"):
        published = getattr(keras.applications, name)(weights=None)
    assert input_spec_of(name)[0] == (published.input_shape[1] or 224)  # MobileNetV3 takes any


def test_knows_all_that_keras_offers_on_torch() -> None:
    keras = keras_models._import_keras("any")
    offered = {name for name in dir(keras.applications) if name[0].isupper()}
    assert known_names() == offered - {"NASNetMobile"}


@pytest.mark.parametrize(("in_chans", "image_size"), [(1, 32), (5, 47)])
@pytest.mark.parametrize("name", ["EfficientNetB0", "MobileNetV3Small"])
def test_a_step_changes_exactly_what_trains(name: str, in_chans: int, image_size: int) -> None:
    model = network(name, in_chans=in_chans, image_size=image_size)
    frozen = set(model.stages[0])
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(key not in frozen)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scores = model(torch.randn(3, in_chans, image_size, image_size))
    assert scores.shape == (3, 7)
    nn.functional.cross_entropy(scores, torch.tensor([0, 1, 2])).backward()
    optimizer.step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    statistics = {key for key in before if "running_" in key or key.endswith("num_batches_tracked")}
    trained = {key for key, _ in model.named_parameters()} - frozen
    assert changed == trained | statistics


def test_counts_without_memory() -> None:
    with torch.device("meta"):
        model = network("EfficientNetB0", pretrained=True)  # asks for nothing on the network
        assert model(torch.empty(2, 3, 32, 32)).shape == (2, 7)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_007_548 + 1280 * 7 + 7


def test_initialisation_follows_the_seed_and_disturbs_nothing() -> None:
    keras = keras_models._import_keras("any")
    keras.config.set_image_data_format("channels_first")
    state = random.getstate(), np.random.get_state()[1].tolist()
    first, again, other = (network(seed=seed).state_dict() for seed in (1, 1, 2))
    assert keras.config.image_data_format() == "channels_first"
    keras.config.set_image_data_format("channels_last")
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert not torch.equal(first["features.conv.weight"], other["features.conv.weight"])


def test_names_of_layers_do_not_depend_on_what_was_built_before() -> None:
    with torch.device("meta"):
        first = network("InceptionV3", image_size=75)
        network("Xception", image_size=75)
        second = network("InceptionV3", image_size=75)
    assert list(first.state_dict()) == list(second.state_dict())
    assert "features.conv2d_1.weight" in first.state_dict()


def test_learns_and_is_restored_and_averaged() -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    rows = torch.tensor(digits.images[:64], dtype=torch.float32)[:, None] / 8 - 1
    images, labels = nn.functional.interpolate(rows, size=(32, 32)), torch.tensor(digits.target[:64])
    model = network("MobileNet", in_chans=1, num_classes=10)
    average = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(5):
        for images_, labels_ in zip(images.split(16), labels.split(16), strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images_), labels_).backward()
            optimizer.step()
            average.update_parameters(model)
    with torch.no_grad():
        accuracy = (model(images).argmax(1) == labels).float().mean()
        assert accuracy > 0.8
        scores, averaged = model.eval()(images), average.eval()(images)
        restored = network("MobileNet", in_chans=1, num_classes=10, seed=9)
        restored.load_state_dict(model.state_dict())
        torch.testing.assert_close(restored.eval()(images), scores, rtol=0, atol=0)
        torch.testing.assert_close(copy.deepcopy(average)(images), averaged, rtol=0, atol=0)
    assert not torch.equal(scores, averaged)


def test_stages_follow_the_blocks() -> None:
    model = network("ResNet50")
    stages = model.stages
    assert [name for stage in stages for name in stage] == [name for name, _ in model.named_parameters()]
    blocks = [sorted({name.split(".")[1].split("_")[0] for name in stage}) for stage in stages[:-1]]
    assert blocks == [["conv1"], ["conv2"], ["conv3"], ["conv4"], ["conv5"]]
    assert stages[-1] == ("head.weight", "head.bias")


@pytest.mark.parametrize("name", ["ConvNeXtTiny", "InceptionV3", "MobileNetV3Small", "VGG16"])
def test_stages_hold_every_parameter_once(name: str) -> None:
    with torch.device("meta"):
        model = network(name, image_size=96)
    named = [each for stage in model.stages for each in stage]
    assert sorted(named) == sorted(each for each, _ in model.named_parameters())
    assert 5 <= len(model.stages) <= 7


def test_dropout_and_drop_path_are_those_of_torch() -> None:
    model = network("EfficientNetB0", dropout=0.5, drop_path=0.3)
    rates = [layer.p for layer in model.modules() if type(layer).__name__ == "StochasticDepth"]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(0.3)
    assert takes_drop_path("EfficientNetB0")
    assert not takes_drop_path("ResNet50")
    images = torch.randn(4, 3, 32, 32)
    scores = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        scores.append(model(images))
    torch.testing.assert_close(scores[0], scores[1], rtol=0, atol=0)
    assert not torch.equal(scores[0], scores[2])


def test_unknown_names_and_small_images() -> None:
    with pytest.raises(ModelError, match="unknown architecture 'keras/ResNet51'; did you mean keras/ResNet50"):
        network("ResNet51")
    with pytest.raises(ValueError, match="at least 75x75"):
        network("InceptionV3", image_size=32)


def test_says_how_to_install_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)  # what an absent package looks like
    with pytest.raises(ModelError, match=r"keras/VGG16: needs the package `keras`.*pip install 'vistune\[keras\]'"):
        network("VGG16")


def test_weights_out_of_reach(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keras_models._import_keras("any")
    from keras.src.backend import config

    monkeypatch.setattr(config, "_KERAS_DIR", str(tmp_path))  # an empty cache
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setattr(urllib.request, "_opener", None)  # made at the first request of a process, with its proxies
    with pytest.raises(ModelError, match=r"keras/MobileNetV3Small: .*neither cached nor reachable .*pretrained: false"):
        network(pretrained=True)


def test_refuses_another_backend() -> None:
    with pytest.raises(ModelError, match="needs keras on its torch backend, but it was imported with tensorflow; set"):
        keras_models._check_backend("VGG16", "tensorflow")
