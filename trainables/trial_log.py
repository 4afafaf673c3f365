"""A trial's TensorBoard event file: its curves, and its hyperparameters for the HParams view."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import FileWriter, SummaryWriter
from torch.utils.tensorboard.summary import hparams

from trainables.config import Hyperparameters, TrialConfig

# Metric of an epoch -> tag in TensorBoard; a slash groups train and validation into one section.
TAGS = {
    "train_loss": "loss/train",
    "val_loss": "loss/val",
    "train_top1": "top1/train",
    "val_top1": "top1/val",
    "val_top5": "top5/val",
    "lr": "lr",
    "images_per_s": "images_per_s",
}


class TrialLog:
    """Writes event files under `trial_dir`; does nothing when it is None (other ranks, plain scripts).

    Args:
        first_epoch: epochs already logged by an earlier attempt; anything later in its files is superseded.
    """

    def __init__(self, trial_dir: Path | None, config: TrialConfig, *, first_epoch: int = 0) -> None:
        self._writer: SummaryWriter | None = None
        if trial_dir is None:
            return
        purge_step = first_epoch + 1 if first_epoch else None
        self._writer = SummaryWriter(str(trial_dir), purge_step=purge_step, max_queue=1000)
        self._file: FileWriter = self._writer._get_file_writer()  # type: ignore[no-untyped-call]
        values = config.model_dump(include=set(Hyperparameters.model_fields))
        plain = {name: "none" if value is None else value for name, value in values.items()}
        experiment, start, self._end = hparams(plain, {TAGS[config.metric]: 0.0})  # type: ignore[no-untyped-call]
        self._file.add_summary(experiment)
        self._file.add_summary(start)

    def add_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Logs one epoch, counted from 1."""
        if self._writer is None:
            return
        for name, tag in TAGS.items():
            if name in metrics:
                self._writer.add_scalar(tag, metrics[name], epoch)

    def __enter__(self) -> TrialLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._file.add_summary(self._end)
            self._writer.close()
