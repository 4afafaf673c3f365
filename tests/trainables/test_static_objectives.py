"""What networks cost, against what is known of them."""

from __future__ import annotations

import pytest

from trainables.hyperparameters import Hyperparameters
from trainables.models import build_model, count_parameters
from trainables.static_objectives import static_objectives

COUNTED = ("num_params", "flops", "model_mib")


def test_published_networks_have_their_published_costs() -> None:
    found = static_objectives(
        Hyperparameters(arch="resnet18", input_size=224), COUNTED, num_classes=1000, in_chans=3, image_size=32
    )
    assert found["num_params"] == 11_689_512
    assert found["flops"] == pytest.approx(2 * 1.814e9, rel=1e-3)  # torchvision states 1.81 giga multiply-adds
    assert found["model_mib"] == pytest.approx(44.66, rel=1e-2)


def test_a_network_of_known_shapes() -> None:
    hyperparameters = Hyperparameters(arch="cnn", cnn_stages=1, cnn_depth=1, cnn_width=8)
    found = static_objectives(hyperparameters, COUNTED, num_classes=10, in_chans=1, image_size=8)
    model = build_model(hyperparameters, num_classes=10, in_chans=1, image_size=8)
    assert found["num_params"] == count_parameters(model)
    smaller = static_objectives(hyperparameters, COUNTED, num_classes=10, in_chans=1, image_size=4)
    assert smaller["num_params"] == found["num_params"]
    assert smaller["flops"] < found["flops"] / 3


def test_the_latency_grows_with_the_network() -> None:
    def latency(arch: str, size: int) -> float:
        hyperparameters = Hyperparameters(arch=arch, input_size=size)
        return static_objectives(hyperparameters, ("latency_ms",), num_classes=10, in_chans=3, image_size=32)[
            "latency_ms"
        ]

    assert 0 < latency("small_cnn", 8) < latency("resnet50", 128)


def test_only_what_is_asked_for_is_given() -> None:
    found = static_objectives(
        Hyperparameters(arch="small_cnn"), ("model_mib",), num_classes=2, in_chans=1, image_size=8
    )
    assert list(found) == ["model_mib"]
