"""A trained model for use: its weights, and the description that says how to build and feed it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import nn

from trainables.atomic_files import write_beside
from trainables.checkpoint import TrialFiles, load_weights, save_weights
from trainables.config import TrialConfig
from trainables.data import ImageData
from trainables.errors import CheckpointError
from trainables.metric_names import LabelKind
from trainables.models import InputSpec, build_model, input_spec
from trainables.preprocess import Preprocess

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"


@dataclass(frozen=True)
class ExportedModel:
    """A model ready to classify.

    Attributes:
        model: in evaluation mode; takes (B, in_chans, spec.size, spec.size) float32, normalised.
        preprocess: makes that input of pixels, (B, in_chans, image_size, image_size) uint8.
        class_names: in the order of the logits.
        kind: what the logits mean: classes that exclude each other, or labels of their own.
        image_size: side to which image files are resized and cropped first.
        spec: what the network takes.
        interpolation: how image files are resized.
    """

    model: nn.Module
    preprocess: Preprocess
    class_names: tuple[str, ...]
    kind: LabelKind
    image_size: int
    in_chans: int
    spec: InputSpec
    interpolation: Literal["bilinear", "bicubic"]


def export_model(
    folder: Path, config: TrialConfig, *, trial_dir: Path, data: ImageData, train_rows: np.ndarray
) -> None:
    """Writes a trial's best weights and all that is needed to use them.

    Raises:
        CheckpointError: if the trial kept no weights.
    """
    weights = load_weights(TrialFiles(trial_dir).best_weights)
    _, image_size, _, in_chans = data.shape
    statistics = data.channel_statistics(train_rows)
    spec = input_spec(config, data_mean_std=statistics, in_chans=in_chans, image_size=image_size)
    description: dict[str, Any] = {
        "format": 2,
        "class_names": list(data.class_names),
        "kind": data.kind,
        "image_size": image_size,
        "in_chans": in_chans,
        "input": asdict(spec),
        "trial": config.model_dump(mode="json"),
    }
    save_weights(folder / WEIGHTS, weights)
    text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
    content = text.encode("utf-8", "backslashreplace")  # of folders whose names are no UTF-8: as JSON escapes them
    write_beside(folder / DESCRIPTION, lambda temporary: temporary.write_bytes(content))


def load_model(folder: Path, *, device: torch.device) -> ExportedModel:
    """The model that `export_model` wrote; no code is read from the folder.

    Raises:
        CheckpointError: if the folder holds no model, or weights and description do not fit each other.
    """
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        # The weights are all there; looking for others to start from would need the network, or files that are gone.
        config = TrialConfig.model_validate({**description["trial"], "pretrained": False, "weights": None})
        names = tuple(str(name) for name in description["class_names"])
        kind = _kind(description["kind"])
        image_size, in_chans = int(description["image_size"]), int(description["in_chans"])
        spec = InputSpec(**description["input"])
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder}: no model here ({DESCRIPTION} is missing); a run has one once it has finished"
        ) from error
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{folder / DESCRIPTION}: not a model description ({error})") from error
    model = build_model(config, num_classes=len(names), in_chans=in_chans, image_size=spec.size)
    try:
        model.load_state_dict(load_weights(folder / WEIGHTS))
    except RuntimeError as error:
        raise CheckpointError(f"{folder / WEIGHTS}: the weights are not those of {config.arch}") from error
    model = model.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return ExportedModel(
        model=model,
        preprocess=Preprocess(
            size=spec.size, mean=spec.mean, std=spec.std, interpolation=spec.interpolation, device=device
        ),
        class_names=names,
        kind=kind,
        image_size=image_size,
        in_chans=in_chans,
        spec=spec,
        interpolation=config.data.interpolation,
    )


def _kind(text: str) -> LabelKind:
    kinds: dict[str, LabelKind] = {kind: kind for kind in get_args(LabelKind)}
    return kinds[text]
