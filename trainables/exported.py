"""A trained model for use: its weights, and the description that says how to build and feed it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from trainables.batches import channel_statistics
from trainables.checkpoint import TrialFiles, load_weights, save_weights
from trainables.config import TrialConfig
from trainables.data import ImageData
from trainables.errors import CheckpointError
from trainables.models import build_model, input_statistics

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"


@dataclass(frozen=True)
class ExportedModel:
    """A model ready to classify.

    Attributes:
        model: in evaluation mode; takes (B, in_chans, image_size, image_size) float32, normalised.
        mean, std: per channel, of pixel values in [0, 1].
        class_names: in the order of the logits.
    """

    model: nn.Module
    mean: list[float]
    std: list[float]
    class_names: tuple[str, ...]
    image_size: int
    in_chans: int


def export_model(
    folder: Path, config: TrialConfig, *, trial_dir: Path, data: ImageData, train_rows: np.ndarray
) -> None:
    """Writes a trial's best weights and all that is needed to use them.

    Raises:
        CheckpointError: if the trial kept no weights.
    """
    weights = load_weights(TrialFiles(trial_dir).best_weights)
    image_size, in_chans = data.images.shape[1], data.images.shape[3]
    mean, std = input_statistics(config, channel_statistics(data.images, train_rows), in_chans)
    description: dict[str, Any] = {
        "format": 1,
        "class_names": list(data.class_names),
        "image_size": image_size,
        "in_chans": in_chans,
        "mean": mean,
        "std": std,
        "trial": config.model_dump(mode="json"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / WEIGHTS, weights)
    temporary = folder / f".{DESCRIPTION}.{os.getpid()}"
    temporary.write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, folder / DESCRIPTION)  # noqa: PTH105


def load_model(folder: Path, *, device: torch.device) -> ExportedModel:
    """The model that `export_model` wrote; no code is read from the folder.

    Raises:
        CheckpointError: if the folder holds no model, or weights and description do not fit each other.
    """
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        # The weights are all there; looking for pretrained ones would need the network for nothing.
        config = TrialConfig.model_validate({**description["trial"], "pretrained": False})
        names = tuple(str(name) for name in description["class_names"])
        image_size, in_chans = int(description["image_size"]), int(description["in_chans"])
        mean, std = list(description["mean"]), list(description["std"])
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder}: no model here ({DESCRIPTION} is missing); a run has one once it has finished"
        ) from error
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / DESCRIPTION}: not a model description ({error})") from error
    model = build_model(config, num_classes=len(names), in_chans=in_chans, image_size=image_size)
    try:
        model.load_state_dict(load_weights(folder / WEIGHTS))
    except RuntimeError as error:
        raise CheckpointError(f"{folder / WEIGHTS}: the weights are not those of {config.arch}") from error
    model = model.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return ExportedModel(model=model, mean=mean, std=std, class_names=names, image_size=image_size, in_chans=in_chans)
