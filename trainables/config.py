"""What does one trial need to know? Frozen, validated, and free of torch so that it loads in milliseconds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from trainables.fidelity import Fidelity
from trainables.hyperparameters import BUILTIN_AUGMENTATIONS, Frozen, Hyperparameters
from trainables.metric_names import METRIC_MODES

DatasetName = Literal[
    "digits", "folder", "imagenet", "csv", "huggingface", "inaturalist", "cifar10", "cifar100", "mnist", "fashion_mnist"
]

# One albumentations transform: its class name, or a mapping of the class name to its arguments.
# `OneOf`, `SomeOf` and `Sequential` take `transforms`, a nested list of the same shape.
AugmentationStep = str | dict[str, dict[str, Any]]


class DataConfig(Frozen):
    """Which images, and how they are decoded."""

    name: DatasetName = Field(
        description="Data set: digits is embedded; folder is class folders under root; imagenet is train/ and val/ "
        "of ImageNet under root, val/ being the test; csv is a table of paths and labels; huggingface is a data set "
        "of the hub or on disk (extra `huggingface`); the others are torchvision's."
    )
    root: str | None = Field(
        default=None,
        description="Folder of the images: CLASS/*.jpg, or train/ val/ test/ with class folders in each. "
        "For csv, what its paths are relative to (by default its own folder). For torchvision's sets, where their "
        "files lie. For huggingface, the data set's name or the folder it was saved to.",
    )
    csv: str | None = Field(
        default=None, description="Table with a header for name: csv; a `split` column may say train, val or test."
    )
    image_column: str | None = Field(
        default=None, description="Column of the images: of csv `path` by default, of huggingface `image`."
    )
    label_column: str | None = Field(default=None, description="Column of the class; `label` by default.")
    label_columns: tuple[str, ...] | None = Field(
        default=None, description="For multi-label data: a column of 0 and 1 for each label."
    )
    label_separator: str | None = Field(
        default=None,
        min_length=1,
        description="For multi-label data: what stands between the labels in label_column, for instance |.",
    )
    version: str | None = Field(
        default=None, description="Version of inaturalist, for instance 2021_train_mini; configuration of huggingface."
    )
    target: str | None = Field(
        default=None,
        description="What a class of inaturalist is: full (species), kingdom, phylum, class, order, family, genus; "
        "in versions before 2021, super too.",
    )
    image_size: Annotated[int, Field(ge=4, le=1024)] | None = Field(
        default=None,
        description="Side in pixels to which images are resized and centre-cropped; by default their own size.",
    )
    interpolation: Literal["bilinear", "bicubic"] = Field(
        default="bicubic", description="How images are resized to image_size."
    )
    loading: Literal["auto", "memory", "stream"] = Field(
        default="auto",
        description="memory decodes once into a file that all trials of a node share; stream decodes again in every "
        "epoch; auto streams where the decoded images exceed half of the memory or the free disk.",
    )
    on_corrupt: Literal["fail", "skip"] = Field(
        default="fail", description="Images that cannot be read: listed as an error before training, or left out."
    )
    download: bool = Field(default=False, description="Let torchvision download its sets when they are missing.")

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> DataConfig:
        if self.name in ("folder", "imagenet", "huggingface") and self.root is None:
            raise ValueError(f"a data set of name {self.name} needs `root`; add root: PATH/TO/IMAGES")
        if self.name == "csv" and self.csv is None:
            raise ValueError("a data set of name csv needs `csv`; add csv: PATH/TO/TABLE.csv")
        if self.label_columns is not None and (self.label_column is not None or self.label_separator is not None):
            raise ValueError(
                "label_columns goes with neither label_column nor label_separator; keep what describes the table"
            )
        if (self.label_columns or self.label_separator) and self.name not in ("csv", "huggingface"):
            raise ValueError(f"label_columns and label_separator are for csv and huggingface, found name {self.name}")
        return self

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.label_columns is not None or self.label_separator is not None


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


class TrialConfig(Hyperparameters):
    """Everything `train` needs: the hyperparameters and what is the same for all trials of a search."""

    data: DataConfig
    split: SplitConfig = SplitConfig()
    metric: str = Field(default="val_top1", description="Metric whose best epoch is kept.")
    augmentations: dict[str, tuple[AugmentationStep, ...]] = Field(
        default_factory=dict, description="albumentations pipelines by name, as lists of transforms."
    )
    max_epochs: int = Field(default=10, ge=1, description="Epochs that the learning-rate schedule spans.")
    fidelity: Fidelity = Field(default=Fidelity(), description="What of the images the epochs train on.")
    micro_batch_size: int | None = Field(
        default=None,
        ge=1,
        description="Most images that a worker passes through the network at once; gradients of the rest of its share "
        "of the batch are accumulated. By default as many as fit.",
    )
    refit_epochs: int | None = Field(
        default=None,
        ge=1,
        description="Train on training and validation images together, for so many of max_epochs; nothing is "
        "validated, and the weights of the last epoch are kept.",
    )
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
        if self.refit_epochs is not None and self.refit_epochs > self.max_epochs:
            raise ValueError(
                f"refit_epochs must be at most max_epochs, got {self.refit_epochs} of {self.max_epochs} epochs"
            )
        if self.refit_epochs is not None and self.lr_schedule == "plateau":
            raise ValueError("lr_schedule: plateau follows the validation loss, which refit_epochs does without")
        if self.pretrained and self.weights is not None:
            raise ValueError(f"pretrained: true and weights: {self.weights} exclude each other; keep one of them")
        return self
