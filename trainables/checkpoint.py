"""What survives an interruption? Checkpoints of a running trial, and the weights of its best epoch.

Both are written beside their target and moved over it, so a reader finds the old file or the new one, never half. The
checkpoint before the last stays until the next is complete: a disk may lose what it said was written.
"""

from __future__ import annotations

import json
import uuid
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainables.atomic_files import write_beside
from trainables.errors import CheckpointError, DamagedCheckpointError, SupersededError, first_line
from trainables.mirrors import mirror_of
from trainables.object_store import fetch, read_shared, remove
from trainables.storage_errors import storage_error

FORMAT = 1


# The last attempt that this process has begun at each trial, by the path of the trial's `attempt`.
_own_attempts: dict[Path, str] = {}


class TrialFiles:
    """Every file that a trial keeps, as a named path."""

    def __init__(self, trial_dir: Path) -> None:
        self.trial_dir = trial_dir

    @property
    def checkpoint(self) -> Path:
        """The whole state after the last finished epoch."""
        return self.trial_dir / "checkpoint.pt"

    @property
    def previous_checkpoint(self) -> Path:
        """The same after the epoch before."""
        return self.trial_dir / "checkpoint.previous.pt"

    @property
    def checkpoints(self) -> tuple[Path, ...]:
        """From the newest to the oldest, whether they are there or not."""
        return self.checkpoint, self.previous_checkpoint

    @property
    def best_weights(self) -> Path:
        """The model's weights after its best epoch."""
        return self.trial_dir / "best.safetensors"

    @property
    def failure(self) -> Path:
        """Why the trial failed, with the traceback."""
        return self.trial_dir / "failure.txt"

    @property
    def recovery(self) -> Path:
        """Which damaged checkpoints the trial came across, a line each, and what it went on from."""
        return self.trial_dir / "recovery.txt"

    @property
    def attempt(self) -> Path:
        """Which of the processes that have trained this trial may write; that which began last."""
        return self.trial_dir / "attempt"

    def fetch(self) -> None:
        """Has this node's copy hold the state and the weights that the store has, where the run lies in one."""
        names = {path.name for path in (*self.checkpoints, self.best_weights)}
        fetch(self.trial_dir, wanted=names.__contains__)

    def drop_copies(self) -> None:
        """Removes this node's copies of the state and the weights, which the store keeps.

        Not where another process on this node has taken the trial up since this one did, or this one never did.
        """
        own = _own_attempts.pop(self.attempt, None)
        with suppress(FileNotFoundError):
            if mirror_of(self.trial_dir) is not None and own == self.attempt.read_text(encoding="utf-8"):
                for path in (*self.checkpoints, self.best_weights):
                    path.unlink(missing_ok=True)

    def remove_checkpoints(self) -> None:
        """For a trial that nothing resumes; what a killed process left half written goes too."""
        for path in (*self.checkpoints, self.attempt):
            remove(path)
        for path in self.trial_dir.glob(".*"):
            path.unlink(missing_ok=True)


class Attempt:
    """The right to write a trial's files, which goes to whoever asked last.

    A process whose node was cut off is given up, but lives: it must not write over what its successor has written.

    Args:
        files: of the trial, which is taken from any other process.
    """

    def __init__(self, files: TrialFiles) -> None:
        self._path = files.attempt
        self._own = _own_attempts[self._path] = uuid.uuid4().hex
        # Not for after a power cut, which no process survives that might write.
        write_beside(self._path, lambda temporary: temporary.write_text(self._own, encoding="utf-8"), sync=False)

    def require(self) -> None:
        """Asks before a write.

        Raises:
            SupersededError: if another process trains the trial now, or it has ended.
        """
        try:
            found = read_shared(self._path)
        except FileNotFoundError:
            found = "none"
        if found != self._own:
            raise SupersededError(
                f"{self._path}: another process trains this trial now, or it has ended; nothing of it was overwritten"
            )


def save_checkpoint(files: TrialFiles, state: Mapping[str, Any]) -> None:
    """Writes a trial's state: tensors, numbers, strings, and lists and mappings of them."""
    write_beside(
        files.checkpoint,
        lambda temporary: _save({"format": FORMAT, **state}, temporary),
        keep=files.previous_checkpoint,
    )


def _save(state: Mapping[str, Any], path: Path) -> None:
    # Torch's own writer says of a full disk only that it "failed writing file"; Python's says why.
    with path.open("wb") as file:
        torch.save(state, file)


def newest_checkpoint(files: TrialFiles, *, device: torch.device) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest state that can be read, None where there is none, and a line on each damaged file before it.

    Raises:
        CheckpointError: if it is of another format.
        OSError: if none can be read, and one of them may be sound: a trial that began anew would write over it.
    """
    damaged: list[str] = []
    unread: OSError | None = None
    for path in files.checkpoints:
        try:
            state = load_checkpoint(path, device=device)
        except DamagedCheckpointError as error:
            damaged.append(str(error))
            continue
        except OSError as error:  # a bad sector, or a file system that is away
            damaged.append(f"{path}: cannot be read ({first_line(error)})")
            unread = error
            continue
        if state is not None:
            return state, damaged
    if unread is not None:
        raise unread
    return None, damaged


def newest_epoch(files: TrialFiles) -> int:
    """Epochs that a trial has saved; 0 where it has no checkpoint that can be read."""
    files.fetch()
    state, _ = newest_checkpoint(files, device=torch.device("cpu"))
    return 0 if state is None else int(state["epoch"])


def load_checkpoint(path: Path, *, device: torch.device) -> dict[str, Any] | None:
    """The state that `save_checkpoint` wrote, or None where there is none.

    Only tensors and plain values are read (`weights_only`): a checkpoint cannot run code.

    Raises:
        DamagedCheckpointError: if the file was cut short or changed.
        CheckpointError: if it is of another format.
        OSError: if it may be sound, but cannot be read here and now.
        MemoryError: if there is no room for it; torch.OutOfMemoryError on a GPU.
    """
    try:
        # torch stores checksums in its archive, and does not look at them when it reads.
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
        if changed is not None:
            raise ValueError(f"{changed} has changed")
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        return None
    except (PermissionError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # what a reader of changed bytes raises may be anything: struct.error, IndexError, ...
        if storage_error(error) is not None:
            raise
        raise DamagedCheckpointError(
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


def save_best_weights(files: TrialFiles, weights: Mapping[str, Tensor], *, metrics: Mapping[str, float]) -> None:
    """Writes the weights of a trial's best epoch, with what that epoch came to."""
    metadata = {"epoch": str(int(metrics["epoch"])), "metrics": json.dumps(dict(metrics))}
    save_weights(files.best_weights, weights, metadata=metadata)


def best_metrics(files: TrialFiles) -> dict[str, float] | None:
    """The metrics of the epoch that a trial's weights are of; None where there are none that can be read."""
    try:
        with safe_open(files.best_weights, framework="pt") as file:
            found: dict[str, float] = json.loads(file.metadata()["metrics"])
            return found
    except Exception:  # as above
        return None


def load_weights(path: Path) -> dict[str, Tensor]:
    """The state dictionary that `save_weights` wrote.

    Raises:
        CheckpointError: if the file is missing or damaged.
    """
    try:
        weights: dict[str, Tensor] = load_file(path)
    except Exception as error:  # as above
        raise CheckpointError(f"{path}: the weights cannot be read ({first_line(error)})") from error
    return weights
