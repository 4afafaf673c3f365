"""What does one trial need to know? Frozen, validated, and free of torch so that it loads in milliseconds."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

DatasetName = Literal["digits", "folder", "cifar10", "cifar100", "mnist", "fashion_mnist"]

# Metrics a trial reports after every epoch on the validation split, and the direction that is better.
METRIC_MODES: dict[str, Literal["max", "min"]] = {
    "val_top1": "max",
    "val_top5": "max",
    "val_loss": "min",
}

BUILTIN_AUGMENTATIONS = ("none", "basic", "randaugment")

# One albumentations transform: its class name, or a mapping of the class name to its arguments.
# `OneOf`, `SomeOf` and `Sequential` take `transforms`, a nested list of the same shape.
AugmentationStep = str | dict[str, dict[str, Any]]


class Frozen(BaseModel):
    """Base of all configuration models: immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(Frozen):
    """Which images, and how they are decoded."""

    name: DatasetName = Field(description="Data set: digits is embedded; folder is class folders under root.")
    root: str | None = Field(
        default=None,
        description="Folder of the images: CLASS/*.jpg, or train/ val/ test/ with class folders in each. "
        "For torchvision's sets, where their files lie.",
    )
    image_size: Annotated[int, Field(ge=4, le=1024)] | None = Field(
        default=None,
        description="Side in pixels to which images are resized and centre-cropped; by default their own size.",
    )
    download: bool = Field(default=False, description="Let torchvision download its sets when they are missing.")

    @model_validator(mode="after")
    def _folder_needs_root(self) -> DataConfig:
        if self.name == "folder" and self.root is None:
            raise ValueError("a class-folder data set needs `root`; add root: PATH/TO/IMAGES")
        return self


class SplitConfig(Frozen):
    """How images without a given split are divided; stratified by class and fixed by the seed."""

    val: float = Field(default=0.2, gt=0, lt=1, description="Fraction of the training images held out for validation.")
    test: float = Field(
        default=0.2, gt=0, lt=1, description="Fraction held out for the final test, where no test folder is given."
    )
    seed: int = Field(default=0, ge=0, description="Seed of the division; another seed is another division.")

    @model_validator(mode="after")
    def _leaves_training_images(self) -> SplitConfig:
        if self.val + self.test >= 1:
            raise ValueError(
                f"val + test must leave images to train on, got {self.val} + {self.test}; use for instance 0.2 and 0.2"
            )
        return self


class Hyperparameters(Frozen):
    """The searchable fields of a trial. A space may name any of them; the rest keep these defaults."""

    arch: str = Field(
        default="small_cnn",
        description="Architecture: small_cnn, any timm name (resnet18, vit_tiny_patch16_224.augreg_in21k), "
        "or torchvision/NAME.",
    )
    pretrained: bool = Field(default=False, description="Start from the architecture's published weights.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout probability before the classifier.")
    batch_size: int = Field(default=64, ge=1, le=65536, description="Global batch size, over all workers.")
    optimizer: Literal["sgd", "adamw"] = Field(default="adamw", description="sgd is with (Nesterov) momentum.")
    lr: float = Field(default=1e-3, gt=0, le=10, description="Peak learning rate, reached after the warm-up.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum of sgd; not used by adamw.")
    weight_decay: float = Field(
        default=1e-4, ge=0, le=1, description="Weight decay; not applied to biases and normalisation layers."
    )
    lr_schedule: Literal["cosine", "constant"] = Field(
        default="cosine", description="Cosine decays to 0 over max_epochs (SGDR without restarts, arXiv:1608.03983)."
    )
    warmup_epochs: float = Field(default=0.0, ge=0, description="Epochs of linear warm-up from 0 to lr.")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="Label smoothing (arXiv:1512.00567).")
    grad_clip_norm: float | None = Field(default=None, gt=0, description="Largest L2 norm of the gradient.")
    augment: str = Field(
        default="none", description="Augmentation: none, basic, randaugment, or a pipeline named in augmentations."
    )
    hflip: float = Field(
        default=0.5, ge=0, le=1, description="Probability of a horizontal flip in basic and randaugment."
    )
    crop_padding: float = Field(
        default=0.125, ge=0, le=0.5, description="Padding of the random crop, as a fraction of the image side."
    )
    randaugment_num_ops: int = Field(default=2, ge=1, le=8, description="Operations an image (N of arXiv:1909.13719).")
    randaugment_magnitude: int = Field(default=9, ge=0, le=30, description="Magnitude (M of arXiv:1909.13719).")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="auto is bf16 on GPUs that have it, fp32 elsewhere; fp16 needs a GPU."
    )


class TrialConfig(Hyperparameters):
    """Everything `train` needs: the hyperparameters and what is the same for all trials of a search."""

    data: DataConfig
    split: SplitConfig = SplitConfig()
    metric: str = Field(default="val_top1", description="Metric whose best epoch is kept.")
    augmentations: dict[str, tuple[AugmentationStep, ...]] = Field(
        default_factory=dict, description="albumentations pipelines by name, as lists of transforms."
    )
    max_epochs: int = Field(default=10, ge=1, description="Epochs that the learning-rate schedule spans.")
    seed: int = Field(default=0, ge=0, description="Seed of initialisation, data order, augmentation and dropout.")

    @model_validator(mode="after")
    def _consistent(self) -> TrialConfig:
        if self.metric not in METRIC_MODES:
            raise ValueError(f"unknown metric {self.metric!r}; use one of {', '.join(METRIC_MODES)}")
        if self.augment not in BUILTIN_AUGMENTATIONS and self.augment not in self.augmentations:
            known = ", ".join([*BUILTIN_AUGMENTATIONS, *self.augmentations])
            raise ValueError(f"unknown augmentation {self.augment!r}; use one of {known}")
        if self.warmup_epochs >= self.max_epochs:
            raise ValueError(
                f"warmup_epochs must be below max_epochs, got {self.warmup_epochs} of {self.max_epochs} epochs"
            )
        return self


def is_better(value: float, than: float | None, *, metric: str) -> bool:
    """Whether a metric value improves on another; NaN never does, and anything finite improves on None."""
    if not math.isfinite(value):
        return False
    if than is None:
        return True
    return value > than if METRIC_MODES[metric] == "max" else value < than
