"""Optimizers: every name learns and resumes exactly; groups have the decay and the learning rates they should."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainables.config import DataConfig, TrialConfig
from trainables.errors import ConfigError
from trainables.finetune import model_stages, num_trainable_stages, set_trainable
from trainables.optim import build_optimizer, exempt_from_decay, extend_optimizer, set_lr
from trainables.optimizer_names import check_optimizer, known_optimizers, uses_momentum

CPU = torch.device("cpu")
# Where 0.01 is far from a useful learning rate.
RATES = {"timm/adadelta": 3.0, "timm/lars": 1.0, "timm/nlars": 1.0}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images[:256], dtype=torch.float32)[:, None] / 8 - 1
    return images.contiguous(memory_format=torch.channels_last), torch.tensor(data.target[:256])


def config(**changes: Any) -> TrialConfig:
    return TrialConfig.model_validate({"data": DataConfig(name="digits"), **changes})


def network() -> nn.Module:
    torch.manual_seed(0)
    # No bias before the normalisation: its gradient is rounding noise, which Adam would make steps of.
    layers: list[nn.Module] = [
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
    ]
    layers += [nn.ReLU(), nn.Flatten(), nn.Linear(288, 32), nn.ReLU(), nn.Linear(32, 10)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def build(model: nn.Module, trial: TrialConfig, *, num: int | None = None) -> Optimizer:
    stages = model_stages(model, trial.arch)
    set_trainable(model, stages, len(stages) if num is None else num)
    return build_optimizer(model, stages, trial, device=CPU)


def take_steps(
    model: nn.Module, optimizer: Optimizer, digits: tuple[Tensor, Tensor], *, steps: range, lr: float
) -> list[float]:
    images, labels = digits
    losses = []
    for step in steps:
        set_lr(optimizer, lr * (1 - step / 40))
        rows = slice(64 * (step % 4), 64 * (step % 4) + 64)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def saved(state: object) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)  # as checkpoints are read


@pytest.mark.parametrize("name", sorted(known_optimizers()))
def test_learns_and_resumes_exactly(name: str, digits: tuple[Tensor, Tensor]) -> None:
    trial = config(optimizer=name, lr=RATES.get(name, 0.01), weight_decay=0.01)
    whole = network()
    losses = take_steps(whole, build(whole, trial), digits, steps=range(12), lr=trial.lr)
    assert sum(losses[8:]) < sum(losses[:4]) - 0.05  # the same four batches

    first = network()
    optimizer = build(first, trial)
    take_steps(first, optimizer, digits, steps=range(5), lr=trial.lr)
    state = saved({"model": first.state_dict(), "optimizer": optimizer.state_dict()})
    resumed = network()
    resumed.load_state_dict(state["model"])
    optimizer = build(resumed, trial)
    optimizer.load_state_dict(state["optimizer"])
    take_steps(resumed, optimizer, digits, steps=range(5, 12), lr=trial.lr)
    expected = whole.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in resumed.state_dict().items())


@pytest.mark.parametrize("name", sorted(name for name in known_optimizers() if uses_momentum(name)))
def test_momentum_reaches_the_optimizer_and_may_be_zero(name: str, digits: tuple[Tensor, Tensor]) -> None:
    assert {group["momentum"] for group in build(network(), config(optimizer=name, momentum=0.5)).param_groups} == {0.5}
    model = network()
    optimizer = build(model, config(optimizer=name, momentum=0.0, lr=0.01))
    assert take_steps(model, optimizer, digits, steps=range(2), lr=0.01)[1] > 0


@pytest.mark.parametrize("name", ["sgd", "adamw", "timm/adam", "timm/adagrad"])
def test_fused_steps_are_those_of_the_plain_implementation(name: str, digits: tuple[Tensor, Tensor]) -> None:
    trial = config(optimizer=name, lr=0.01, weight_decay=0.1)
    fused, plain = network(), network()
    fast = build(fused, trial)
    assert all(group["fused"] for group in fast.param_groups)
    stages = model_stages(plain, trial.arch)
    slow = build_optimizer(plain, stages, trial, device=torch.device("meta"))  # a device without fused kernels
    assert not any(group["fused"] for group in slow.param_groups)
    for model, optimizer in ((fused, fast), (plain, slow)):
        take_steps(model, optimizer, digits, steps=range(4), lr=trial.lr)
    for one, other in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "timm/momentum", "adamw", "timm/adam"])
def test_a_first_step_that_loss_scaling_skips_leaves_nothing(name: str) -> None:
    """As with fp16 on a GPU, where the first scale is usually too large."""
    weights = []
    for overflows in (True, False):
        model = network()
        optimizer = build(model, config(optimizer=name, lr=0.01, precision="fp16"))
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        for gradient in (math.inf, 1.0, 2.0) if overflows else (1.0, 2.0):
            optimizer.zero_grad()
            scaler.scale(sum(parameter.sum() for parameter in model.parameters()) * gradient).backward()
            scaler.step(optimizer)
            scaler.update()
        weights.append([parameter.detach() for parameter in model.parameters()])
    for skipped, straight in zip(*weights, strict=True):
        torch.testing.assert_close(skipped, straight)


def test_rmsprop_and_lion_are_their_papers() -> None:
    for name, expected in (("rmsprop", -0.1 / (0.01**0.5)), ("lion", -0.1)):
        weight = nn.Linear(2, 2, bias=False)
        start = weight.weight.detach().clone()
        optimizer = build_optimizer(weight, [("weight",)], config(optimizer=name, weight_decay=0, lr=0.1), device=CPU)
        weight.weight.grad = torch.full((2, 2), 3.0)
        optimizer.step()
        torch.testing.assert_close(weight.weight.detach() - start, torch.full((2, 2), expected))


def test_decay_spares_vectors_and_position_embeddings() -> None:
    import timm

    model = timm.create_model("vit_tiny_patch16_224", num_classes=7)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = build(model, config(weight_decay=0.3)).param_groups
    decayed, exempt = ([names[id(parameter)] for parameter in group["params"]] for group in groups)
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert {"pos_embed", "cls_token", "head.bias", "norm.weight"} <= set(exempt)
    assert "head.weight" in decayed
    assert len(decayed) + len(exempt) == len(names)


def test_decay_spares_vectors_embeddings_and_what_the_model_names() -> None:
    import timm
    from torchvision import models

    vit = timm.create_model("test_vit", num_classes=7)
    exempt = exempt_from_decay(vit)
    assert {"pos_embed", "cls_token", "head.bias", "norm.weight"} <= exempt
    assert not {"head.weight", "patch_embed.proj.weight"} & exempt
    swin = timm.create_model("swin_tiny_patch4_window7_224", num_classes=7, img_size=32)
    assert "layers.0.blocks.0.attn.relative_position_bias_table" in exempt_from_decay(swin)
    with torch.device("meta"):
        for other, name in (
            (models.swin_t(), "features.1.0.attn.relative_position_bias_table"),
            (models.vit_b_16(), "encoder.pos_embedding"),
            (models.vit_b_16(), "class_token"),
            (models.convnext_tiny(), "features.1.0.layer_scale"),
        ):
            assert name in exempt_from_decay(other)
    optimizer = build(vit, config(weight_decay=0.3))
    decayed, spared = optimizer.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    assert len(spared["params"]) == len(exempt)
    assert len(decayed["params"]) + len(exempt) == len(list(vit.parameters()))


def test_layer_decay_scales_the_rate_of_each_stage() -> None:
    import timm

    model = timm.create_model("test_vit", num_classes=7)
    trial = config(layer_decay=0.5, lr=0.1)
    stages = model_stages(model, trial.arch)
    optimizer = build(model, trial)
    set_lr(optimizer, 0.08)
    rates = {id(each): group["lr"] for group in optimizer.param_groups for each in group["params"]}
    parameters = dict(model.named_parameters())
    assert len(rates) == len(parameters)
    for above, stage in enumerate(reversed(stages)):
        assert {rates[id(parameters[name])] for name in stage} == {0.08 * 0.5**above}
    assert rates[id(parameters["head.weight"])] == 0.08
    assert rates[id(parameters["cls_token"])] == 0.08 * 0.5 ** (len(stages) - 1)


def test_corrected_decay_knows_the_peak_of_its_stage() -> None:
    optimizer = build(network(), config(optimizer="timm/adamc", layer_decay=0.5, lr=0.1))
    assert {group["max_lr_snapshot"] / group["lr_scale"] for group in optimizer.param_groups} == {0.1}
    assert len({group["lr_scale"] for group in optimizer.param_groups}) == 4


def progress(trial: TrialConfig, digits: tuple[Tensor, Tensor], *, epochs: range, state: Any = None) -> Iterator[Any]:
    """Two steps an epoch with one stage more in each; the state after every epoch, as it is saved."""
    model = network()
    stages = model_stages(model, trial.arch)
    set_trainable(model, stages, num_trainable_stages(trial, len(stages), epoch=0))
    optimizer = build_optimizer(model, stages, trial, device=CPU)
    if state is not None:  # straight to the last finished epoch
        set_trainable(model, stages, num_trainable_stages(trial, len(stages), epoch=epochs.start - 1))
        extend_optimizer(optimizer, model, stages, trial)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    for epoch in epochs:
        set_trainable(model, stages, num_trainable_stages(trial, len(stages), epoch=epoch))
        extend_optimizer(optimizer, model, stages, trial)
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        take_steps(model, optimizer, digits, steps=range(2 * epoch, 2 * epoch + 2), lr=trial.lr)
        trained = {name for stage in stages[-epoch - 1 :] for name in stage}
        assert {name for name, each in model.named_parameters() if not torch.equal(each, before[name])} == trained
        assert sum(len(group["params"]) for group in optimizer.param_groups) == len(trained)
        yield saved({"model": model.state_dict(), "optimizer": optimizer.state_dict()})


@pytest.mark.parametrize("name", ["adamw", "sgd", "rmsprop", "timm/adagrad", "timm/lamb", "timm/muon", "timm/adan"])
@pytest.mark.parametrize("layer_decay", [1.0, 0.7])
def test_progressive_is_the_same_after_an_interruption(
    name: str, layer_decay: float, digits: tuple[Tensor, Tensor]
) -> None:
    trial = config(finetune="progressive", optimizer=name, lr=1e-3, layer_decay=layer_decay)
    whole = list(progress(trial, digits, epochs=range(4)))
    resumed = list(progress(trial, digits, epochs=range(3, 4), state=whole[2]))[-1]
    groups, expected = (each["optimizer"]["param_groups"] for each in (resumed, whole[-1]))
    assert len(groups) == len(expected) == 8  # four stages, with decay and without
    for group, other in zip(groups, expected, strict=True):  # loading may add keys with their defaults
        assert group == group | other
    for key, value in whole[-1]["model"].items():
        assert torch.equal(value, resumed["model"][key]), key
    for at, values in whole[-1]["optimizer"]["state"].items():
        for key, value in values.items():
            other = resumed["optimizer"]["state"][at][key]
            assert torch.equal(value, other) if isinstance(value, Tensor) else value == other


def test_names_are_those_of_timm() -> None:
    from timm.optim import get_optimizer_info, list_optimizers

    refused = {name for name in list_optimizers() if f"timm/{name}" not in known_optimizers()}
    assert {name for name in refused if not name.startswith(("bnb", "fused"))} == {
        "adahessian",
        "kron",
        "kronc",
        "kronw",
    }
    assert known_optimizers() == {"sgd", "adamw", "rmsprop", "lion"} | {
        f"timm/{name}" for name in list_optimizers() if name not in refused
    }
    for name in known_optimizers():
        check_optimizer(name)
        if name.startswith("timm/"):
            assert uses_momentum(name) == get_optimizer_info(name.removeprefix("timm/")).has_momentum
    assert [uses_momentum(name) for name in ("sgd", "rmsprop", "adamw", "lion", "nonsense")] == [True, True] + [
        False
    ] * 3


def test_finding_names_imports_no_library() -> None:
    code = (
        "import sys; from trainables.optimizer_names import check_optimizer, uses_momentum; "
        "check_optimizer('timm/lamb'); assert uses_momentum('timm/lars'); "
        "print([name for name in ('torch', 'timm') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("adamv", "unknown optimizer 'adamv'; nearest: adamw"),
        ("timm/lamp", "nearest: timm/lamb"),
        ("lamb", "'lamb' is one of timm's optimizers; write timm/lamb"),
        ("timm/lion8", "nearest: timm/lion"),
        ("AdamW", "nearest: adamw"),
        ("lbfgs", "optimizer 'lbfgs' takes several passes over a batch for one step"),
        ("timm/adahessian", "needs second derivatives, which the training loop does not compute; use one of sgd"),
        ("timm/kron", "draws from torch's global random state"),
        ("timm/lookahead_adam", "wraps another optimizer"),
        ("timm/bnbadam8bit", "needs the package bitsandbytes"),
        ("fusedlamb", "needs the package apex"),
        ("", "write sgd, adamw, rmsprop, lion or timm/NAME"),
    ],
)
def test_refuses(name: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_optimizer(name)
    assert text in str(caught.value)
    with pytest.raises(ConfigError):
        build(network(), config().model_copy(update={"optimizer": name}))
