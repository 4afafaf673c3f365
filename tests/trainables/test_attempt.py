"""A process that was given up, and lives, does not write over what its successor has written."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from tests.trainables.test_train import config
from trainables.atomic_files import write_beside
from trainables.checkpoint import Attempt, TrialFiles, load_checkpoint
from trainables.errors import SupersededError
from trainables.runtime import LocalRuntime, MetricValue
from trainables.storage_errors import storage_error
from trainables.train import train


class Overtaken(LocalRuntime):
    """While it reports its first epoch, another process trains the whole trial."""

    def report(self, metrics: dict[str, MetricValue], *, last: bool) -> None:
        super().report(metrics, last=last)
        if len(self.reported) == 1:
            train(config(max_epochs=3), LocalRuntime(trial_dir=self.trial_dir, num_threads=1))


def test_an_overtaken_process_leaves_the_files_alone(tmp_path: Path) -> None:
    with pytest.raises(SupersededError, match="another process trains this trial now"):
        train(config(max_epochs=3), Overtaken(trial_dir=tmp_path, num_threads=1))
    state = load_checkpoint(TrialFiles(tmp_path).checkpoint, device=torch.device("cpu"))
    assert state is not None
    assert state["epoch"] == 3


def test_nobody_writes_once_the_trial_has_ended(tmp_path: Path) -> None:
    files = TrialFiles(tmp_path)
    attempt = Attempt(files)
    attempt.require()
    (tmp_path / ".checkpoint.pt.1").touch()  # of a process that was killed in the middle
    files.remove_checkpoints()
    assert not list(tmp_path.iterdir())
    with pytest.raises(SupersededError, match="or it has ended"):
        attempt.require()


@pytest.mark.parametrize("told", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("(os error 28)")])
def test_what_the_disk_said_is_told(tmp_path: Path, told: Exception) -> None:
    def write(path: Path) -> None:
        path.touch()
        try:
            raise told
        except OSError as error:
            raise RuntimeError("failed writing file") from error  # as torch does

    with pytest.raises(OSError) as raised:
        write_beside(tmp_path / "file", write)
    assert raised.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())
    assert storage_error(FileNotFoundError(errno.ENOENT, "missing")) is None
