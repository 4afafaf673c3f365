"""A trial's TensorBoard event file: its curves, and its hyperparameters for the HParams view."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import hparams

from trainables.config import TrialConfig
from trainables.hyperparameters import Hyperparameters
from trainables.object_store import publish

_SPLITS = ("train", "val")
_UNPLOTTED = ("epoch", "score", "best_epoch", "train_s", "read_s", "val_s", "micro_batch_size")


def tag_of(metric: str) -> str:
    """The tag of an epoch's metric in TensorBoard: a slash groups training and validation into one section.

    >>> tag_of("val_top1")
    'top1/val'
    """
    split, _, name = metric.partition("_")
    return f"{name}/{split}" if split in _SPLITS and name != "s" else metric


def log_picture(folder: Path, *, tag: str, png: bytes, height: int, width: int) -> None:
    """Writes an event file with one picture."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
    with _create(folder, _file_name()) as file:
        records = RecordWriter(file)
        for event in (
            {"file_version": "brain.Event:2"},
            {"step": 0, "summary": Summary(value=[Summary.Value(tag=tag, image=picture)])},
        ):
            records.write(Event(wall_time=time.time(), **event).SerializeToString())


class TrialLog:
    """Writes event files under `trial_dir`; does nothing when it is None (other ranks, plain scripts).

    An epoch is one record, on disk when `add_epoch` returns. torch's SummaryWriter keeps a thread and a queue for each
    file, which cost a small trial a tenth of its time.

    Args:
        first_epoch: epochs already logged by an earlier attempt; anything later in its files is superseded.
    """

    def __init__(self, trial_dir: Path | None, config: TrialConfig, *, first_epoch: int = 0) -> None:
        self._file: BinaryIO | None = None
        if trial_dir is None:
            return
        trial_dir.mkdir(parents=True, exist_ok=True)
        self._file = _create(trial_dir, _file_name())
        self._path = Path(self._file.name)
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        if first_epoch:
            self._write(step=first_epoch + 1, session_log=SessionLog(status=SessionLog.START))
        values = config.model_dump(include=set(Hyperparameters.model_fields))
        plain = {name: "none" if value is None else value for name, value in values.items()}
        experiment, start, self._end = hparams(plain, {tag_of(config.metric): 0.0})  # type: ignore[no-untyped-call]
        self._write(summary=experiment)
        self._write(summary=start)

    def add_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Logs one epoch, counted from 1."""
        if self._file is None:
            return
        values = [
            Summary.Value(tag=tag_of(name), simple_value=value)
            for name, value in metrics.items()
            if name not in _UNPLOTTED
        ]
        self._write(step=epoch, summary=Summary(value=values))
        self._file.flush()
        publish(self._path)

    def __enter__(self) -> TrialLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._write(summary=self._end)
            self._file.close()
            publish(self._path)

    def _write(self, **event: Any) -> None:
        self._records.write(Event(wall_time=time.time(), **event).SerializeToString())


def _file_name() -> str:
    return f"events.out.tfevents.{time.time_ns() // 10**9:010d}.{socket.gethostname()}.{os.getpid()}"


def _create(folder: Path, name: str) -> BinaryIO:
    """A new file of that name, numbered if another attempt in the same second took it."""
    attempt = 0
    while True:
        try:
            return (folder / f"{name}.{attempt}").open("xb")
        except FileExistsError:
            attempt += 1
