"""The names found in the sources are those that the libraries list, and mistakes name their neighbours."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from trainables.architectures import check_architecture, known_architectures
from trainables.errors import ConfigError
from trainables.pipeline_names import known_transforms, pipeline_problems


def test_names_are_those_of_the_libraries() -> None:
    import timm
    import torchvision

    of_torchvision = {f"torchvision/{name}" for name in torchvision.models.list_models(module=torchvision.models)}
    assert known_architectures() == {"small_cnn"} | set(timm.list_models()) | of_torchvision


def test_finding_names_imports_no_library() -> None:
    code = (
        "import sys; from trainables.architectures import check_architecture; "
        "from trainables.pipeline_names import known_transforms; "
        "check_architecture('resnet18.a1_in1k'); assert 'Affine' in known_transforms(); "
        "print([name for name in ('torch', 'timm', 'torchvision', 'albumentations') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


@pytest.mark.parametrize("name", ["small_cnn", "resnet18", "resnet18.a1_in1k", "torchvision/resnet18", "resnet10t"])
def test_accepts(name: str) -> None:
    check_architecture(name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resnt18", "unknown architecture 'resnt18'; nearest: resnet18"),
        ("smallcnn", "nearest: small_cnn"),
        ("ResNet18x", "nearest: resnet18"),
        ("torchvision/resnet19", "nearest: torchvision/resnet18"),
        ("alexnet", "'alexnet' is not in timm but in torchvision; write torchvision/alexnet"),
        ("alexnt", "nearest: torchvision/alexnet"),
        (
            "resnet18.a9_in1k",
            "timm's resnet18 has no weights tagged 'a9_in1k'; write resnet18 or one of resnet18.a1_in1k",
        ),
        ("resnt18.a1_in1k", "unknown architecture 'resnt18'; nearest: resnet18"),
        ("", "write small_cnn, the name of a timm model such as resnet18, or torchvision/NAME"),
        ("resnet18.", "timm's resnet18 has no weights tagged ''"),
    ],
)
def test_refuses(name: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_architecture(name)
    assert text in str(caught.value)


def test_transforms_are_those_of_albumentations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")  # it would look for a newer release on the network
    import albumentations

    assert {"Affine", "HorizontalFlip", "OneOf", "SomeOf", "Sequential", "NoOp"} <= known_transforms()
    assert not {"Compose", "BasicTransform", "Lambda", "BboxParams"} & known_transforms()
    concrete = {
        name
        for name, value in vars(albumentations).items()
        if inspect.isclass(value) and issubclass(value, albumentations.BasicTransform)
    }
    bases = {"BasicTransform", "DualTransform", "ImageOnlyTransform", "Transform3D"}
    assert concrete - known_transforms() == bases | {"Lambda", "ToTensorV2", "ToTensor3D"}
    assert all(isinstance(getattr(albumentations, name), type) for name in known_transforms())


@pytest.mark.parametrize(
    ("steps", "loc", "text"),
    [
        ("Affine", (), "must be a list of transforms, found 'Affine'"),
        ([], (), "must name at least one transform"),
        ([3], (0,), "must be one transform, found 3; write - Name, or - Name: {argument: value}"),
        ([{"Blur": {}, "Affine": {}}], (0,), "found the keys Blur, Affine"),
        ([{"Blur": None}], (0, "Blur"), "must be followed by a mapping of arguments, found nothing; write - Blur"),
        (["Blur", "HorizontlFlip"], (1,), "no transform 'HorizontlFlip'; nearest: HorizontalFlip"),
        ([{"OneOf": {"transforms": ["Blurr"]}}], (0, "OneOf", "transforms", 0), "nearest: Blur"),
    ],
)
def test_broken_pipelines(steps: object, loc: tuple[str | int, ...], text: str) -> None:
    ((found_loc, found_text),) = pipeline_problems(steps)
    assert found_loc == loc
    assert text in found_text
