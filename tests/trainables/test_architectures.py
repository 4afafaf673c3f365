"""The names found in the sources are those that the libraries list, and mistakes name their neighbours."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from tests.fuzzing import FUZZES
from trainables.architectures import check_architecture, known_architectures, takes_drop_path
from trainables.errors import ConfigError
from trainables.keras_names import known_names
from trainables.pipeline_names import known_transforms, pipeline_problems


def test_names_are_those_of_the_libraries() -> None:
    import timm
    import torchvision

    of_torchvision = {f"torchvision/{name}" for name in torchvision.models.list_models(module=torchvision.models)}
    of_keras = {f"keras/{name}" for name in known_names()}
    assert known_architectures() == {"small_cnn", "cnn"} | set(timm.list_models()) | of_torchvision | of_keras


def drop_path_rates(name: str) -> list[float]:
    """Of a network asked to skip blocks with probability 0.3; raises TypeError where it cannot be asked."""
    import timm
    import torch
    import torchvision

    with torch.device("meta"):
        if name.startswith("torchvision/"):
            model = torchvision.models.get_model_builder(name.removeprefix("torchvision/"))()
        else:
            model = timm.create_model(name, drop_path_rate=0.3)
    skipping = [each for each in model.modules() if type(each).__name__ in ("DropPath", "StochasticDepth")]
    return [float(getattr(each, "drop_prob", None) or getattr(each, "p", 0.0)) for each in skipping]


@pytest.mark.filterwarnings("ignore:The default weight initialization:FutureWarning")
@pytest.mark.parametrize(
    ("name", "takes"),
    [
        ("resnet18", True),
        ("resnet18.a1_in1k", True),
        ("resnetv2_50", True),
        ("regnety_004", True),
        ("vgg16", False),
        ("efficientnet_b0", True),
        ("tf_efficientnetv2_b0", True),
        ("inception_v3", False),
        ("mobilenetv2_100", True),
        ("mobilenetv3_small_100", True),
        ("vit_tiny_patch16_224", True),
        ("deit_tiny_patch16_224", True),
        ("deit_tiny_distilled_patch16_224", True),
        ("swin_tiny_patch4_window7_224", True),
        ("swinv2_tiny_window8_256", True),
        ("convnext_atto", True),
        ("eva02_tiny_patch14_224", True),
        ("mixer_s32_224", True),
        ("densenet121", False),
        ("ghostnet_050", False),
        ("dla34", False),
        ("torchvision/resnet50", False),
        ("torchvision/swin_t", True),
        ("torchvision/swin_v2_t", True),
        ("torchvision/convnext_tiny", True),
        ("torchvision/efficientnet_b0", True),
        ("torchvision/maxvit_t", True),
        ("torchvision/vit_b_16", False),
        ("torchvision/mobilenet_v3_small", False),
        ("torchvision/inception_v3", False),
    ],
)
def test_takes_drop_path(name: str, takes: bool) -> None:
    assert takes_drop_path(name) == takes
    try:
        rates = drop_path_rates(name)
    except TypeError as error:
        assert "drop_path_rate" in str(error)
        rates = []
    assert (max(rates, default=0.0) > 0) == takes


@pytest.mark.slow
def test_takes_drop_path_is_right_of_timms_models() -> None:
    """Of each family and each fourth model; of all of them with `make fuzz`, which takes minutes."""
    import timm

    names = timm.list_models()
    if not FUZZES:
        families = {name.partition("_")[0].rstrip("0123456789"): name for name in names}
        names = sorted({*families.values(), *names[::4]})
    for name in names:
        try:
            rates = drop_path_rates(name)
        except TypeError:
            rates = []
        assert (max(rates, default=0.0) > 0) == takes_drop_path(name), name


@pytest.mark.parametrize("name", ["small_cnn", "cnn", "keras/MobileNetV2", "no_such_network", "keras/NoSuch"])
def test_others_take_no_drop_path(name: str) -> None:
    assert not takes_drop_path(name)


def test_finding_names_imports_no_library() -> None:
    code = (
        "import sys; from trainables.architectures import check_architecture, takes_drop_path; "
        "from trainables.pipeline_names import known_transforms; "
        "check_architecture('resnet18.a1_in1k'); "
        "assert takes_drop_path('deit_tiny_patch16_224'); assert 'Affine' in known_transforms(); "
        "print([name for name in ('torch', 'timm', 'torchvision', 'albumentations', 'keras') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


@pytest.mark.parametrize(
    "name", ["small_cnn", "cnn", "resnet18", "resnet18.a1_in1k", "torchvision/resnet18", "resnet10t"]
)
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
        ("", "write small_cnn or cnn, the name of a timm model such as resnet18, torchvision/NAME or keras/NAME"),
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
