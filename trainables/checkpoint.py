"""What survives an interruption? Checkpoints of a running trial, and the weights of its best epoch.

Both are written beside their target and moved over it, so a reader finds the old file or the new one, never half.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainables.atomic_files import write_beside
from trainables.errors import CheckpointError, first_line

FORMAT = 1


class TrialFiles:
    """Every file that a trial keeps, as a named path."""

    def __init__(self, trial_dir: Path) -> None:
        self.trial_dir = trial_dir

    @property
    def checkpoint(self) -> Path:
        """The whole state after the last finished epoch."""
        return self.trial_dir / "checkpoint.pt"

    @property
    def best_weights(self) -> Path:
        """The model's weights after its best epoch."""
        return self.trial_dir / "best.safetensors"

    @property
    def failure(self) -> Path:
        """Why the trial failed, with the traceback."""
        return self.trial_dir / "failure.txt"


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a trial's state: tensors, numbers, strings, and lists and mappings of them."""
    write_beside(path, lambda temporary: torch.save({"format": FORMAT, **state}, temporary))


def load_checkpoint(path: Path, *, device: torch.device) -> dict[str, Any] | None:
    """The state that `save_checkpoint` wrote, or None where there is none.

    Only tensors and plain values are read (`weights_only`): a checkpoint cannot run code.

    Raises:
        CheckpointError: if the file is damaged or of another format.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path}: the checkpoint cannot be read ({first_line(error)}); delete it to train this trial anew"
        ) from error
    found = state.get("format") if isinstance(state, dict) else None
    if found != FORMAT:
        raise CheckpointError(
            f"{path}: checkpoint format {FORMAT} is needed, found {found}; delete it to train this trial anew"
        )
    return state


def save_weights(path: Path, weights: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a model's state dictionary as safetensors."""
    # safetensors refuses tensors that share storage (tied weights) and strided layouts such as channels-last.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    write_beside(path, lambda temporary: save_file(plain, temporary, metadata=dict(metadata or {})))


def load_weights(path: Path) -> dict[str, Tensor]:
    """The state dictionary that `save_weights` wrote.

    Raises:
        CheckpointError: if the file is missing or damaged.
    """
    try:
        weights: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: the weights cannot be read ({first_line(error)})") from error
    return weights
