"""Stages cover every network; what is frozen does not move by a bit, and what trains does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainables.config import DataConfig, TrialConfig
from trainables.errors import ModelError
from trainables.finetune import model_stages, num_trainable_stages, set_trainable, train_mode
from trainables.optim import build_optimizer, set_lr
from trainables.small_cnn import SmallCNN

CPU = torch.device("cpu")
TRAINED = [
    "resnet10t",
    "test_vit",
    "test_convnext",
    "test_efficientnet",
    "torchvision/mobilenet_v3_small",
    "torchvision/resnet18",
    "small_cnn",
]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def config(**changes: Any) -> TrialConfig:
    return TrialConfig.model_validate({"data": DataConfig(name="digits"), **changes})


def build(arch: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    if arch == "small_cnn":
        return SmallCNN(num_classes=10, in_chans=3, image_size=32, dropout=0.1)
    if arch.startswith("torchvision/"):
        from torchvision import models

        name = arch.removeprefix("torchvision/")
        if name in ("googlenet", "inception_v3"):
            options["init_weights"] = False
        found: nn.Module = models.get_model_builder(name)(num_classes=10, **options)
        return found
    import timm

    model: nn.Module = timm.create_model(arch, num_classes=10, **options)
    return model


def upscaled_digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images[:32], dtype=torch.float32)[:, None] / 8 - 1
    return nn.functional.interpolate(images, size=32).expand(-1, 3, -1, -1), torch.tensor(data.target[:32])


def assert_covers(model: nn.Module, stages: list[tuple[str, ...]]) -> None:
    names = [name for stage in stages for name in stage]
    assert len(names) == len(set(names))
    assert set(names) == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(stages) and len(stages) > 1


@pytest.mark.parametrize(
    ("arch", "num_stages", "stem", "head"),
    [
        ("resnet18", 6, {"conv1.weight", "bn1.weight", "bn1.bias"}, {"fc.weight", "fc.bias"}),
        ("test_vit", 8, {"cls_token", "pos_embed", "patch_embed.proj.weight"}, {"head.weight", "head.bias"}),
        ("test_convnext", 6, {"stem.0.weight"}, {"head.fc.weight", "head.fc.bias"}),
        ("vgg11", 10, {"features.0.weight"}, {"head.fc.weight", "head.fc.bias"}),
        ("pit_ti_224", 5, {"pos_embed", "cls_token", "patch_embed.conv.weight"}, {"head.weight", "head.bias"}),
        ("levit_128s", 5, {"stem.conv1.linear.weight"}, {"head.bn.weight", "head_dist.linear.weight"}),
        ("torchvision/resnet18", 6, {"conv1.weight", "bn1.weight", "bn1.bias"}, {"fc.weight", "fc.bias"}),
        ("torchvision/vit_b_16", 14, {"class_token", "conv_proj.weight"}, {"heads.head.weight", "heads.head.bias"}),
        ("torchvision/swin_t", 9, {"features.0.0.weight", "features.0.2.weight"}, {"head.weight", "head.bias"}),
        ("torchvision/mobilenet_v2", 20, {"features.0.0.weight"}, {"classifier.1.weight", "classifier.1.bias"}),
        ("torchvision/alexnet", 8, {"features.0.weight"}, {"classifier.6.weight", "classifier.6.bias"}),
        ("torchvision/googlenet", 13, {"conv1.conv.weight"}, {"fc.weight", "aux1.fc2.weight", "aux2.conv.bn.bias"}),
        ("torchvision/inception_v3", 17, {"Conv2d_1a_3x3.bn.bias"}, {"fc.bias", "AuxLogits.fc.weight"}),
        ("small_cnn", 7, {"layers.0.weight", "layers.1.weight", "layers.1.bias"}, {"layers.23.bias"}),
    ],
)
def test_stages_go_from_the_stem_to_the_classifier(arch: str, num_stages: int, stem: set[str], head: set[str]) -> None:
    with torch.device("meta"):
        model = build(arch)
    stages = model_stages(model, arch)
    assert_covers(model, stages)
    assert len(stages) == num_stages
    assert stem <= set(stages[0])
    assert head <= set(stages[-1])
    assert all(
        "aux" in name.lower() or name.split(".")[0] in {each.split(".")[0] for each in head} for name in stages[-1]
    )


@pytest.mark.slow
def test_stages_of_every_family_of_timm() -> None:
    from timm.models import list_models, list_modules

    for family in sorted(list_modules()):
        names = list_models(module=family)
        if not names:
            continue
        arch = min(
            names, key=lambda name: (any(word in name for word in ("large", "huge", "giant", "base")), len(name))
        )
        with torch.device("meta"):
            model = build(arch)
        stages = model_stages(model, arch)
        assert_covers(model, stages)
        assert 4 <= len(stages) <= 64, arch
        assert sum(dict(model.named_parameters())[name].ndim > 1 for name in stages[-1]) <= 4, arch


def test_what_the_architecture_fixes_is_in_no_stage() -> None:
    model = build("test_vit")
    model.get_parameter("pos_embed").requires_grad_(False)
    stages = model_stages(model, "test_vit")
    assert_covers(model, stages)
    set_trainable(model, stages, 1)
    set_trainable(model, stages, len(stages))
    assert [name for name, each in model.named_parameters() if not each.requires_grad] == ["pos_embed"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"finetune": "full"}, [6, 6, 6, 6, 6]),
        ({"finetune": "head"}, [1, 1, 1, 1, 1]),
        ({"finetune": "last_stages", "finetune_stages": 2}, [3, 3, 3, 3, 3]),
        ({"finetune": "last_stages", "finetune_stages": 9}, [6, 6, 6, 6, 6]),
        ({"finetune": "progressive"}, [1, 2, 3, 4, 5]),
        ({"finetune": "progressive", "unfreeze_epochs": 2}, [1, 1, 2, 2, 3]),
    ],
)
def test_num_trainable_stages(changes: dict[str, Any], expected: list[int]) -> None:
    assert [num_trainable_stages(config(**changes), 6, epoch=epoch) for epoch in range(5)] == expected
    assert num_trainable_stages(config(**changes), 6, epoch=999) <= 6


@pytest.mark.parametrize("finetune", ["head", "last_stages"])
@pytest.mark.parametrize("arch", TRAINED)
def test_frozen_stages_do_not_move(arch: str, finetune: str) -> None:
    trial = config(arch=arch, finetune=finetune, lr=0.01, weight_decay=0.1)
    model = build(arch)
    images, labels = upscaled_digits()
    stages = model_stages(model, arch)
    num = num_trainable_stages(trial, len(stages), epoch=0)
    set_trainable(model, stages, num)
    optimizer = build_optimizer(model, stages, trial, device=CPU)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = []
    for _ in range(4):
        train_mode(model)
        set_lr(optimizer, trial.lr)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]

    trained = {name for stage in stages[-num:] for name in stage}
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    statistics = moved - trained  # the running statistics beside trained weights move with them, no others do
    assert trained <= moved
    assert {name.rpartition(".")[0] for name in statistics} <= {name.rpartition(".")[0] for name in trained}
    assert all(name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in statistics)
    parameters = dict(model.named_parameters())
    assert set(optimizer.state) == {parameters[name] for name in trained}
    assert all(parameters[name].grad is None for name in set(parameters) - trained)


def test_frozen_stages_are_without_noise() -> None:
    model = build("test_convnext", drop_path_rate=0.5)
    images, _ = upscaled_digits()
    stages = model_stages(model, "test_convnext")
    features = {num: [Tensor(), Tensor()] for num in (1, len(stages))}
    for num, found in features.items():
        set_trainable(model, stages, num)
        train_mode(model)
        for at in range(2):
            with torch.no_grad():
                found[at] = model.forward_features(images)  # type: ignore[operator]
    assert torch.equal(*features[1])
    assert not torch.equal(*features[len(stages)])
    assert model.training  # the classifier's dropout is on


def test_statistics_without_parameters_go_with_the_layer_before() -> None:
    plain = {"affine": False}
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, **plain), nn.Sequential(nn.BatchNorm2d(4, **plain)))
    model.append(nn.Conv2d(4, 4, 3)).append(nn.BatchNorm2d(4, **plain)).append(nn.Flatten()).append(nn.LazyLinear(2))
    model(torch.randn(2, 3, 8, 8))
    stages = model_stages(model, "cnn")
    assert [stage[0] for stage in stages] == ["0.weight", "3.weight", "6.weight"]
    for num, expected in ((3, [True, True, True]), (2, [False, False, True]), (1, [False, False, False])):
        set_trainable(model, stages, num)
        train_mode(model)
        modes = [module.training for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        assert modes == expected
    train_mode(model)
    set_trainable(model, stages, 3)
    train_mode(model)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(("cnn_stages", "cnn_depth"), [(1, 1), (2, 3), (5, 2)])
def test_stages_of_cnn_are_its_own(cnn_stages: int, cnn_depth: int) -> None:
    from trainables.cnn import CNN

    trial = config(arch="cnn", cnn_stages=cnn_stages, cnn_depth=cnn_depth, cnn_width=8)
    stages = model_stages(CNN(trial, num_classes=10, in_chans=3, image_size=32), "cnn")
    assert len(stages) == cnn_stages + 1
    assert [len(stage) for stage in stages] == [3 * cnn_depth] * cnn_stages + [2]


class Declared(nn.Module):
    """A network that names its stages, as those converted from Keras do."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.late, self.early = nn.Linear(4, 2), nn.Linear(4, 4), nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.stages = (
            ("early.weight", "early.bias"),
            ("late.weight", "late.bias", "norm.weight", "norm.bias"),
            ("head.weight", "head.bias"),
        )


def test_stages_that_a_network_declares_are_taken() -> None:
    model = Declared()
    assert model_stages(model, "keras/Any") == list(model.stages)


def test_a_single_score_is_a_classifier() -> None:
    stages = model_stages(nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 1)), "cnn")
    assert stages == [("0.weight", "0.bias", "1.weight", "1.bias"), ("2.weight", "2.bias")]


def test_a_network_without_a_classifier_is_refused() -> None:
    with pytest.raises(ModelError, match="arch: norms has no layer that could be its classifier"):
        model_stages(nn.Sequential(nn.BatchNorm2d(3)), "norms")
