"""Starting weights: every layout that people have them in is taken, adapted to the task, or refused with the reason."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from trainables import exported
from trainables.errors import ModelError
from trainables.hyperparameters import Hyperparameters
from trainables.models import InputSpec, build_model, check_model, input_spec, split_outputs

CLASSES = ("cat", "dog", "emu")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def build(
    arch: str = "resnet10t",
    *,
    num_classes: int = 3,
    in_chans: int = 3,
    image_size: int = 32,
    seed: int = 1,
    class_names: tuple[str, ...] | None = None,
    **fields: Any,
) -> nn.Module:
    torch.manual_seed(seed)
    config = Hyperparameters(arch=arch, **fields)
    model = build_model(
        config, num_classes=num_classes, in_chans=in_chans, image_size=image_size, class_names=class_names
    )
    return model.eval()


def skip_without_keras() -> None:
    if find_spec("keras") is None:  # importing it here would settle its backend
        pytest.skip("the extra `keras` is not installed")


def contiguous(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.contiguous().clone() for name, tensor in state.items()}


def as_run(folder: Path, model: nn.Module, *, arch: str, classes: tuple[str, ...] = CLASSES) -> Path:
    """Lays a finished run out as `exported.export_model` and `search.results.RunPaths` do."""
    best = folder / "best_model"
    best.mkdir(parents=True)
    save_file(contiguous(model.state_dict()), best / exported.WEIGHTS)
    seen = {"size": 40, "mean": [0.3] * 3, "std": [0.2] * 3, "interpolation": "bilinear"}
    description = {"class_names": classes, "image_size": 32, "in_chans": 3, "input": seen, "trial": {"arch": arch}}
    (best / exported.DESCRIPTION).write_text(json.dumps(description))
    return folder


def same(first: nn.Module, second: nn.Module, *, but: str = "nothing") -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours if not name.startswith(but))


def wrapped(prefix: str) -> Callable[[dict[str, Tensor]], Any]:
    return lambda state: {f"{prefix}{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("weights.safetensors", dict),
        ("weights.pt", dict),
        ("weights.pth", lambda state: {"state_dict": state, "epoch": 3, "arch": "resnet10t"}),
        ("weights.pth", lambda state: {"model": wrapped("module.")(state), "args": {"lr": 0.1}}),
        ("weights.pth", lambda state: {"model_ema": state, "model": wrapped("_orig_mod.")(state)}),
        ("weights.pth", wrapped("_orig_mod.module.")),
        ("pytorch_model.bin", wrapped("module._orig_mod.")),
    ],
)
@pytest.mark.parametrize("in_folder", [False, True])
def test_layouts_of_files(name: str, wrap: Callable[[dict[str, Tensor]], Any], in_folder: bool, tmp_path: Path) -> None:
    source = build(seed=5)
    file = tmp_path / name
    state = wrap(contiguous(source.state_dict()))
    save_file(state, file) if file.suffix == ".safetensors" else torch.save(state, file)
    path = str(tmp_path if in_folder else file)
    assert same(build(weights=path), source)
    assert check_model(Hyperparameters(arch="resnet10t", weights=path), num_classes=3, in_chans=3, image_size=32) > 0


def test_preferred_file_of_a_folder(tmp_path: Path) -> None:
    for name, seed in (("model.safetensors", 5), ("extra.safetensors", 6), ("pytorch_model.bin", 7)):
        state = contiguous(build(seed=seed).state_dict())
        save_file(state, tmp_path / name) if name.endswith("s") else torch.save(state, tmp_path / name)
    assert same(build(weights=str(tmp_path)), build(seed=5))


@pytest.mark.parametrize(
    ("arch", "head"),
    [
        ("small_cnn", "layers."),
        ("cnn", "head"),
        ("resnet10t", "fc"),
        ("mobilenetv3_small_050", "classifier"),
        ("convnext_atto", "head.fc"),
        ("deit_tiny_distilled_patch16_224", "head"),
        ("torchvision/resnet18", "fc"),
        ("torchvision/squeezenet1_1", "classifier.1"),
        ("torchvision/swin_t", "head"),
    ],
)
def test_other_classes_and_channels(arch: str, head: str, tmp_path: Path) -> None:
    source = build(arch, seed=5, num_classes=4)
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    path = str(tmp_path / "weights.pt")
    gray = build(arch, num_classes=3, in_chans=1, dropout=0.2, weights=path)
    for name, tensor in source.state_dict().items():
        own = gray.state_dict()[name]
        if own.shape == tensor.shape:
            assert torch.equal(own, tensor) or name.startswith(head)
        elif tensor.ndim == 4 and tensor.shape[1] == 3:  # a gray image gives what it gave as RGB
            torch.testing.assert_close(own, tensor.sum(1, keepdim=True))
        else:
            assert name.startswith(head)
    fresh = build(arch, num_classes=3, in_chans=1, dropout=0.2)
    heads = [name for name, own in gray.state_dict().items() if own.shape[:1] == (3,) and name.startswith(head)]
    assert heads and all(torch.equal(gray.state_dict()[name], fresh.state_dict()[name]) for name in heads)


@pytest.mark.parametrize("arch", ["keras/MobileNetV3Small", "keras/EfficientNetB0"])
def test_keras_for_gray_images_and_other_classes(arch: str, tmp_path: Path) -> None:
    skip_without_keras()
    source = build(arch, seed=5, num_classes=4)
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    model = build(arch, in_chans=1, weights=str(tmp_path / "weights.pt"))
    gray = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        features, known = model.get_submodule("features"), source.get_submodule("features")
        torch.testing.assert_close(features(gray), known(gray.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)
    assert torch.equal(model.get_parameter("head.weight"), build(arch, in_chans=1).get_parameter("head.weight"))


def test_gray_weights_for_colour_images(tmp_path: Path) -> None:
    source = build(in_chans=1, seed=5)
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    model = build(weights=str(tmp_path / "weights.pt"))
    gray = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(gray.expand(-1, 3, -1, -1)), source(gray))


# Both in timm's resampling of Swin's tables.
@pytest.mark.filterwarnings("ignore:torch.searchsorted:UserWarning")
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")
@pytest.mark.parametrize(
    ("arch", "trained", "wanted", "tensor"),
    [
        ("vit_tiny_patch16_224", 64, 96, "pos_embed"),
        ("deit_tiny_distilled_patch16_224", 64, 32, "pos_embed"),
        ("swin_tiny_patch4_window7_224", 224, 64, "layers.3.blocks.0.attn.relative_position_bias_table"),
        ("torchvision/vit_b_32", 96, 64, "encoder.pos_embedding"),
    ],
)
def test_positions_are_resampled(arch: str, trained: int, wanted: int, tensor: str, tmp_path: Path) -> None:
    source = build(arch, image_size=trained, seed=5)
    # Smooth in both directions, as trained embeddings are: resampled, they keep their range and their mean.
    nn.init.constant_(source.get_parameter(tensor), 0.25)
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    path = str(tmp_path / "weights.pt")
    model = build(arch, image_size=wanted, weights=path)
    found = model.get_parameter(tensor)
    assert found.shape != source.get_parameter(tensor).shape
    torch.testing.assert_close(found.detach(), torch.full_like(found, 0.25))
    config = Hyperparameters(arch=arch, weights=path)
    assert check_model(config, num_classes=3, in_chans=3, image_size=wanted) > 10**6


def test_published_names_of_older_files(tmp_path: Path) -> None:
    source = build("torchvision/densenet121", seed=5)
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", k): v for k, v in source.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save({k: v for k, v in old.items() if not k.endswith("num_batches_tracked")}, tmp_path / "densenet.pth")
    assert same(build("torchvision/densenet121", weights=str(tmp_path)), source, but="classifier")


def test_weights_of_facebooks_convnext(tmp_path: Path) -> None:
    """timm's filter turns the names of the original checkpoints into its own."""
    source = build("convnext_atto", seed=5)
    original = {}
    for name, tensor in source.state_dict().items():
        name = name.replace("stem.", "downsample_layers.0.").replace("mlp.fc1", "pwconv1").replace("mlp.fc2", "pwconv2")
        name = re.sub(r"stages\.(\d)\.downsample\.", r"downsample_layers.\1.", name)
        name = name.replace(".blocks.", ".").replace("conv_dw", "dwconv").replace("head.norm", "norm")
        original[name.replace("head.fc", "head")] = tensor
    torch.save({"model": original}, tmp_path / "convnext.pth")
    assert same(build("convnext_atto", weights=str(tmp_path)), source)


@pytest.mark.parametrize("arch", ["inception_v3", "torchvision/googlenet"])
def test_auxiliary_heads_may_be_absent_or_for_nothing(arch: str, tmp_path: Path) -> None:
    large, small = (299, 107) if arch == "inception_v3" else (64, 64)
    full = build(arch, image_size=large, seed=5)
    bare = {k: v for k, v in full.state_dict().items() if not k.startswith(("aux", "AuxLogits"))}
    assert len(bare) < len(full.state_dict())
    torch.save(full.state_dict(), tmp_path / "full.pt")
    torch.save(bare, tmp_path / "bare.pt")
    assert same(build(arch, image_size=large, weights=str(tmp_path / "full.pt")), full)
    with_new = build(arch, image_size=large, num_classes=4, weights=str(tmp_path / "bare.pt"))
    assert all(torch.equal(with_new.state_dict()[k], v) for k, v in bare.items() if not k.startswith("fc."))
    without = build(arch, image_size=small, weights=str(tmp_path / "full.pt"))
    assert isinstance(without(torch.randn(1, 3, small, small)), Tensor)
    _, auxiliary = split_outputs(without.train()(torch.randn(2, 3, small, small)))
    assert len(auxiliary) == (0 if arch == "inception_v3" else 2)


def test_best_model_of_a_run(tmp_path: Path) -> None:
    source = build(seed=5)
    run = as_run(tmp_path / "run", source, arch="resnet10t.c3_in1k")
    for path in (run, run / "best_model"):
        assert same(build(weights=str(path), class_names=CLASSES), source)
    renamed = build(weights=str(run), class_names=("ant", "bee", "cow"))
    assert same(renamed, source, but="fc.")
    assert torch.equal(renamed.get_parameter("fc.weight"), build().get_parameter("fc.weight"))
    config = Hyperparameters(arch="resnet10t", weights=str(run))
    spec = input_spec(config, data_mean_std=([0.1] * 3, [0.1] * 3), in_chans=3, image_size=32)
    assert spec == InputSpec(40, [0.3] * 3, [0.2] * 3, "bilinear")
    bigger = config.model_copy(update={"input_size": 64})
    assert input_spec(bigger, data_mean_std=([0.1], [0.1]), in_chans=1, image_size=32).size == 64


def test_input_of_local_files(tmp_path: Path) -> None:
    data = ([0.1] * 3, [0.1] * 3)
    for arch, mean in (("resnet10t", 0.485), ("vit_tiny_patch16_224", 0.5), ("small_cnn", 0.1)):
        torch.save(build(arch).state_dict(), tmp_path / "weights.pt")
        config = Hyperparameters(arch=arch, weights=str(tmp_path / "weights.pt"))
        spec = input_spec(config, data_mean_std=data, in_chans=3, image_size=32)
        assert (spec.size, spec.mean[0]) == (32, mean)


def _damaged(folder: Path) -> Path:
    torch.save(build().state_dict(), folder / "damaged.pt")
    content = (folder / "damaged.pt").read_bytes()
    (folder / "damaged.pt").write_bytes(content[: len(content) // 2])
    return folder / "damaged.pt"


def _damaged_safetensors(folder: Path) -> Path:
    save_file(contiguous(build().state_dict()), folder / "damaged.safetensors")
    content = (folder / "damaged.safetensors").read_bytes()
    (folder / "damaged.safetensors").write_bytes(content[: len(content) // 2])
    return folder / "damaged.safetensors"


def _whole_model(folder: Path) -> Path:
    with warnings.catch_warnings():
        torch.save(build(), folder / "model.pt")
    return folder / "model.pt"


def _saved(value: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        torch.save(value() if callable(value) else value, folder / "weights.pt")
        return folder / "weights.pt"

    return write


def _two_files(folder: Path) -> Path:
    for name in ("a.pt", "b.pth"):
        torch.save(build().state_dict(), folder / name)
    return folder


def _other_run(folder: Path) -> Path:
    return as_run(folder / "run", build("small_cnn"), arch="small_cnn")


def _part() -> dict[str, Tensor]:
    return {name: tensor for name, tensor in build().state_dict().items() if not name.startswith("layer4.0.conv")}


def _extended() -> dict[str, Tensor]:
    return build().state_dict() | {f"neck.{number}": torch.zeros(1) for number in range(7)}


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: folder / "absent.pt", r"weights: .*absent\.pt does not exist; name a weights file"),
        (lambda folder: folder, "must hold one weights file .* found none"),
        (_two_files, r"must hold one weights file .* found 2 \(a\.pt, b\.pth\)"),
        (_damaged, r"damaged\.pt cannot be read as weights"),
        (_damaged_safetensors, r"damaged\.safetensors cannot be read as weights"),
        (_whole_model, r"cannot be read as weights \(weights_only=True blocked.*torch\.save\(model\.state_dict\(\)"),
        (_saved({"epoch": 3, "lr": 0.1}), r"holds no tensors by name, found epoch, lr; save a state dictionary"),
        (_saved([1, 2]), "cannot be read as weights"),
        (_saved({"blocks.0.weight": torch.zeros(3)}), r"none of the 1 tensors \(blocks\.0\.weight\) fits resnet10t"),
        (_saved(_part), r"do not fit resnet10t: 2 missing \(layer4\.0\.conv1\.weight, layer4\.0\.conv2\.weight\)"),
        (_saved(_extended), r"do not fit resnet10t: 7 not known to it \(neck\.0, .*neck\.4, \.\.\.\)"),
        (_saved(lambda: build("resnet18").state_dict()), r"missing .* of another shape .*set arch to the arch"),
        (_other_run, "run is a model of small_cnn, but arch is resnet10t; set arch: small_cnn"),
    ],
)
def test_what_cannot_be_used(write: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    path = str(write(tmp_path))
    config = Hyperparameters(arch="resnet10t", weights=path)
    with pytest.raises(ModelError, match=message):
        build(weights=path)
    with pytest.raises(ModelError, match=message):
        check_model(config, num_classes=3, in_chans=3, image_size=32)


def test_other_shapes_of_the_searched_network(tmp_path: Path) -> None:
    torch.save(build("cnn", cnn_width=16).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=r"fits? cnn.*give the cnn_ fields that they were trained with"):
        build("cnn", cnn_width=32, weights=str(tmp_path / "weights.pt"))


def test_a_table_is_no_weights_file(tmp_path: Path) -> None:
    (tmp_path / "weights.csv").write_text("a,b\n")
    with pytest.raises(ModelError, match=r"weights\.csv is not of a known kind; use a file that ends in \.safetensors"):
        build(weights=str(tmp_path / "weights.csv"))
