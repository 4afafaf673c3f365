"""A checkpoint that a disk has cut short or changed costs an epoch, never a trial."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.checkpoint import TrialFiles, load_checkpoint, newest_checkpoint, newest_epoch, save_checkpoint
from trainables.config import TrialConfig
from trainables.errors import CheckpointError, DamagedCheckpointError
from trainables.runtime import LocalRuntime, MetricValue
from trainables.train import train

CPU = torch.device("cpu")
CONFIG = TrialConfig.model_validate(
    {"data": {"name": "digits"}, "arch": "small_cnn", "batch_size": 128, "lr": 0.003, "max_epochs": 4}
)


class _Killed(LocalRuntime):
    """Ends as a killed process does: the epoch is saved, its report never arrives."""

    def report(self, metrics: Mapping[str, MetricValue], *, last: bool) -> None:
        super().report(metrics, last=last)
        if metrics["epoch"] == 3:
            raise KeyboardInterrupt


def losses(runtime: LocalRuntime) -> list[MetricValue]:
    return [each["val_loss"] for each in runtime.reported]


@pytest.fixture(scope="module")
def uninterrupted() -> list[MetricValue]:
    runtime = LocalRuntime(num_threads=1)
    train(CONFIG, runtime)
    return losses(runtime)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def zeroed_inside(content: bytes) -> bytes:
    """A block that never reached the disk: the archive is whole, and torch reads it without a word."""
    middle = len(content) // 2
    return content[:middle] + bytes(4096) + content[middle + 4096 :]


def emptied(content: bytes) -> bytes:
    del content
    return b""


@pytest.mark.parametrize("damage", [cut, zeroed_inside, emptied])
@pytest.mark.parametrize(("damaged", "goes_on_from"), [(1, 2), (2, 0)])
def test_a_trial_goes_on_from_the_newest_sound_checkpoint(
    tmp_path: Path,
    damage: Callable[[bytes], bytes],
    damaged: int,
    goes_on_from: int,
    uninterrupted: list[MetricValue],
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, _Killed(trial_dir=tmp_path, num_threads=1))
    files = TrialFiles(tmp_path)
    for path in files.checkpoints[:damaged]:
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(DamagedCheckpointError, match=rf"{path.name}: the checkpoint cannot be read .*; delete it"):
            load_checkpoint(path, device=CPU)

    runtime = LocalRuntime(trial_dir=tmp_path, num_threads=1)
    train(CONFIG, runtime)
    assert losses(runtime) == uninterrupted
    told = files.recovery.read_text().splitlines()
    assert len(told) == damaged
    assert all(line.endswith(f"went on from epoch {goes_on_from}") for line in told)


def test_a_kill_between_two_files_loses_nothing(tmp_path: Path, uninterrupted: list[MetricValue]) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, _Killed(trial_dir=tmp_path, num_threads=1))
    files = TrialFiles(tmp_path)
    files.checkpoint.replace(files.previous_checkpoint)  # the new one had not come yet
    runtime = LocalRuntime(trial_dir=tmp_path, num_threads=1)
    train(CONFIG, runtime)
    assert losses(runtime) == uninterrupted
    assert not files.recovery.exists()


@pytest.mark.parametrize("seed", range(5))
def test_any_flipped_bit_of_a_weight_is_noticed(tmp_path: Path, seed: int) -> None:
    files = TrialFiles(tmp_path)
    weights = torch.arange(50_000, dtype=torch.float32)
    save_checkpoint(files, {"epoch": 1, "model": {"weight": weights}})
    content = bytearray(files.checkpoint.read_bytes())
    start = content.index(weights[1000:1100].numpy().tobytes())
    content[start + random.Random(seed).randrange(400)] ^= 1 << seed
    files.checkpoint.write_bytes(content)
    state, damaged = newest_checkpoint(files, device=CPU)
    assert state is None
    assert len(damaged) == 1
    assert "has changed" in damaged[0]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no room"), MemoryError(), OSError(errno.ESTALE, "away")])
def test_a_checkpoint_that_may_be_sound_is_not_trained_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    files = TrialFiles(tmp_path)
    for epoch in (1, 2):
        save_checkpoint(files, {"epoch": epoch})
    load = torch.load

    def fails(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(torch, "load", fails)
    with pytest.raises(type(error)):
        newest_epoch(files)
    monkeypatch.setattr(torch, "load", load)
    assert newest_epoch(files) == 2


def test_another_format_is_refused_rather_than_passed_over(tmp_path: Path) -> None:
    files = TrialFiles(tmp_path)
    save_checkpoint(files, {"epoch": 1})
    save_checkpoint(files, {"epoch": 2, "format": 7})
    with pytest.raises(CheckpointError, match="checkpoint format 1 is needed, found 7"):
        newest_checkpoint(files, device=CPU)
