"""Which choices make up a trial? Every searchable field, with its range and source; free of torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

# What `augment` may name besides a pipeline of the section `augmentations`.
BUILTIN_AUGMENTATIONS = ("none", "basic", "autoaugment", "randaugment", "trivialaugment", "augmix")


class Frozen(BaseModel):
    """Base of all configuration models: immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _check_odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"a kernel has a middle, so its side is odd, found {value}; write {value - 1} or {value + 1}")
    return value


class Hyperparameters(Frozen):
    """The searchable fields of a trial. A space may name any of them; the rest keep these defaults.

    A field that another choice makes meaningless (`momentum` with adamw) is left alone then; `trainables/conditions.py`
    says which.
    """

    # --- the network ---
    arch: str = Field(
        default="small_cnn",
        description="Architecture: small_cnn, cnn (see the cnn_ fields), any timm name (resnet18, "
        "vit_tiny_patch16_224.augreg_in21k), torchvision/NAME, or keras/NAME.",
    )
    pretrained: bool = Field(default=False, description="Start from the architecture's published weights.")
    weights: str | None = Field(
        default=None,
        description="Start from local weights: a .safetensors, .pt or .pth file, a folder with one, or results/RUN of "
        "an earlier search (its best model). The head is drawn anew where the classes differ.",
    )
    input_size: Annotated[int, Field(ge=8, le=1024)] | None = Field(
        default=None,
        description="Side in pixels that the network sees; images of another size are resized on the device. By "
        "default that of the published weights with pretrained: true, else that of the images.",
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout probability before the classifier.")
    drop_path: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Stochastic depth: highest probability of skipping a block (arXiv:1603.09382); architectures with "
        "residual blocks that offer it.",
    )
    cnn_stages: int = Field(default=3, ge=1, le=6, description="Stages of cnn; each but the first halves the side.")
    cnn_depth: int = Field(default=2, ge=1, le=8, description="Convolutions in each stage of cnn.")
    cnn_width: int = Field(
        default=32, ge=4, le=512, description="Channels of the first stage of cnn; doubled in each later stage."
    )
    cnn_kernel: Annotated[int, Field(ge=1, le=11), AfterValidator(_check_odd)] = Field(
        default=3, description="Side of the convolution kernels of cnn; odd."
    )
    cnn_norm: Literal["batch", "group", "none"] = Field(
        default="batch", description="Normalisation in cnn; group does not depend on the batch."
    )
    cnn_activation: Literal["relu", "leaky_relu", "gelu", "silu"] = Field(
        default="relu", description="Activation function in cnn."
    )

    # --- which parts of it train ---
    finetune: Literal["full", "head", "last_stages", "progressive"] = Field(
        default="full",
        description="What trains: everything; the classifier on frozen features; the classifier and the last "
        "finetune_stages; or one stage more every unfreeze_epochs (arXiv:1801.06146).",
    )
    finetune_stages: int = Field(
        default=1, ge=1, le=50, description="Stages below the classifier that train with finetune: last_stages."
    )
    unfreeze_epochs: int = Field(
        default=1, ge=1, le=1000, description="Epochs before finetune: progressive unfreezes one stage more."
    )
    layer_decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Learning rate of each stage as a fraction of that of the stage above it (arXiv:2003.10555).",
    )

    # --- how it moves ---
    batch_size: int = Field(default=64, ge=1, le=65536, description="Global batch size, over all workers.")
    optimizer: str = Field(
        default="adamw",
        description="sgd (Nesterov momentum), adamw, rmsprop, lion, or timm/NAME for any other of timm's optimizers.",
    )
    lr: float = Field(default=1e-3, gt=0, le=10, description="Peak learning rate, reached after the warm-up.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum of sgd and rmsprop.")
    weight_decay: float = Field(
        default=1e-4, ge=0, le=1, description="Weight decay; not applied to biases and normalisation layers."
    )
    lr_schedule: Literal["cosine", "constant", "step", "plateau", "one_cycle"] = Field(
        default="cosine",
        description="After the warm-up: cosine decays to 0 over max_epochs (arXiv:1608.03983); step multiplies by "
        "lr_drop every step_epochs; plateau does when the metric has not improved for plateau_patience epochs; "
        "one_cycle rises from lr/25 over 30 % of the epochs and falls to 0 (arXiv:1708.07120).",
    )
    warmup_epochs: float = Field(default=0.0, ge=0, description="Epochs of linear warm-up from 0 to lr.")
    step_epochs: int = Field(default=10, ge=1, description="Epochs between two drops of lr_schedule: step.")
    lr_drop: float = Field(
        default=0.1, gt=0, lt=1, description="Factor of each drop in the schedules step and plateau."
    )
    plateau_patience: int = Field(
        default=3, ge=1, description="Epochs without improvement before lr_schedule: plateau drops."
    )
    grad_clip_norm: float | None = Field(default=None, gt=0, description="Largest L2 norm of the gradient.")
    ema_decay: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Decay of an exponential moving average of the weights, which then is what is validated and kept; "
        "0 is without. Warmed up over the first steps.",
    )
    patience: int | None = Field(
        default=None, ge=1, description="A trial ends after this many epochs without a better metric."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="auto is bf16 on GPUs that have it, fp32 elsewhere; fp16 needs a GPU."
    )
    channels_last: bool = Field(default=True, description="Images and convolutions channels-last in memory.")
    compile: bool = Field(default=False, description="torch.compile the network; pays off in long trials only.")

    # --- what is minimised ---
    loss: Literal["auto", "cross_entropy", "focal", "bce"] = Field(
        default="auto",
        description="auto is cross_entropy, and bce for multi-label data; focal is arXiv:1708.02002; bce takes each "
        "class for a yes-or-no question.",
    )
    focal_gamma: float = Field(default=2.0, ge=0, le=10, description="Focusing parameter of loss: focal.")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="Label smoothing (arXiv:1512.00567).")
    class_weights: Literal["none", "inverse", "effective"] = Field(
        default="none",
        description="Weight of a class in the loss: by inverse frequency, or by effective number (arXiv:1901.05555).",
    )
    effective_beta: float = Field(default=0.999, ge=0, lt=1, description="beta of class_weights: effective.")
    sampling: Literal["shuffle", "oversample", "balanced"] = Field(
        default="shuffle",
        description="Order of an epoch: every image once; drawn with replacement, classes equally likely; or batches "
        "with equally many images of every class.",
    )

    # --- how images are varied ---
    augment: str = Field(
        default="none",
        description="Augmentation: none, basic, autoaugment, randaugment, trivialaugment, augmix, or a pipeline named "
        "in augmentations. All but none and pipelines include the crop, flips, rotation and jitter of basic.",
    )
    crop: Literal["pad", "resized", "none"] = Field(
        default="pad",
        description="Random crop: of the padded image, or of a part of it brought to full size (RandomResizedCrop).",
    )
    crop_padding: float = Field(
        default=0.125, ge=0, le=0.5, description="Padding of crop: pad, as a fraction of the image side."
    )
    crop_scale: float = Field(
        default=0.35, gt=0, le=1, description="Smallest part of the image's area that crop: resized keeps."
    )
    hflip: float = Field(default=0.5, ge=0, le=1, description="Probability of a horizontal flip.")
    vflip: float = Field(default=0.0, ge=0, le=1, description="Probability of a vertical flip.")
    rotation: float = Field(default=0.0, ge=0, le=180, description="Largest random rotation in degrees.")
    color_jitter: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Strength of random brightness, contrast and saturation; hue moves by a quarter of it.",
    )
    erasing: float = Field(
        default=0.0, ge=0, le=1, description="Probability that a rectangle is erased (arXiv:1708.04896)."
    )
    randaugment_num_ops: int = Field(default=2, ge=1, le=8, description="Operations an image (N of arXiv:1909.13719).")
    randaugment_magnitude: int = Field(default=9, ge=0, le=30, description="Magnitude (M of arXiv:1909.13719).")
    augmix_severity: int = Field(default=3, ge=1, le=10, description="Strength of augmix (arXiv:1912.02781).")
    augmix_width: int = Field(default=3, ge=1, le=8, description="Chains that augmix mixes.")
    mixup_alpha: float = Field(
        default=0.0, ge=0, le=10, description="Beta parameter of Mixup (arXiv:1710.09412); 0 off."
    )
    cutmix_alpha: float = Field(
        default=0.0, ge=0, le=10, description="Beta parameter of CutMix (arXiv:1905.04899); 0 off."
    )
    mix_prob: float = Field(
        default=1.0, ge=0, le=1, description="Share of batches that are mixed; where both are on, half by each."
    )
