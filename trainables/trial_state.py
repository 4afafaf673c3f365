"""Everything that a trial in training consists of: built from its configuration, saved and restored."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainables.augment import build_augment
from trainables.batches import Batch, EvalBatches, TrainBatches
from trainables.checkpoint import Attempt, TrialFiles, newest_checkpoint
from trainables.config import DataConfig, SplitConfig, TrialConfig
from trainables.data import ImageData, load_data
from trainables.ema import Ema
from trainables.errors import CheckpointError, ConfigError
from trainables.finetune import model_stages, num_trainable_stages, set_trainable
from trainables.imbalance import check_sampling
from trainables.losses import build_loss, check_loss
from trainables.metric_names import LabelKind, metrics_of
from trainables.models import auxiliary_weight, build_model, input_spec
from trainables.object_store import fetch_file, publish
from trainables.optim import build_optimizer, extend_optimizer
from trainables.precision import Precision
from trainables.preprocess import Preprocess
from trainables.runtime import Runtime
from trainables.seeds import Stream, seed_torch, stream_seed
from trainables.splits import Splits, make_splits
from trainables.step import Stepper

EpochMetrics = dict[str, float]
Stages = list[tuple[str, ...]]


@dataclass
class TrialState:
    """A trial in training.

    Attributes:
        stages: parameter names from the input to the classifier, the unit of freezing.
        ema: the averaged weights, where they are wanted: these are validated and kept.
        history: the metrics of all finished epochs.
        attempt: the right to write files; of rank 0, where there are any.
    """

    config: TrialConfig
    runtime: Runtime
    kind: LabelKind
    class_names: tuple[str, ...]
    model: nn.Module
    stages: Stages
    ema: Ema | None
    stepper: Stepper
    train_batches: TrainBatches
    val_batches: EvalBatches
    history: list[EpochMetrics] = field(default_factory=list)
    attempt: Attempt | None = None

    @property
    def kept_model(self) -> nn.Module:
        """The weights that count: averaged where they are, else those that move."""
        return self.model if self.ema is None else self.ema.module

    def start_epoch(self, epoch: int) -> None:
        """Lets the stages train that do in this epoch, counted from 0, on images of its size."""
        preprocess = self.stepper.preprocess
        size = self.config.fidelity.image_size(epoch, size=preprocess.size)
        if size != self.stepper.train_preprocess.size:
            self.stepper.train_preprocess = preprocess.at(size)
        before = num_trainable_stages(self.config, len(self.stages), epoch=max(0, epoch - 1))
        now = num_trainable_stages(self.config, len(self.stages), epoch=epoch)
        if now != before:
            set_trainable(self.model, self.stages, now)
            extend_optimizer(self.stepper.optimizer, self.model, self.stages, self.config)


def start_trial(config: TrialConfig, runtime: Runtime) -> TrialState:
    """Builds everything the loop needs, and restores it from the trial's checkpoint if there is one."""
    if config.batch_size < runtime.world_size:
        raise ConfigError(
            f"batch_size: {config.batch_size} images cannot be split over {runtime.world_size} workers; raise it"
        )
    if runtime.num_threads is not None:
        torch.set_num_threads(runtime.num_threads)
    data, splits, statistics = load_task(config.data, config.split)
    check_labels(config, data.kind)
    model, preprocess = _build_network(config, data, statistics, device=runtime.device)
    stages = model_stages(model, config.arch)
    set_trainable(model, stages, num_trainable_stages(config, len(stages), epoch=0))
    rows = splits.train if config.refit_epochs is None else np.union1d(splits.train, splits.val)
    train_batches = TrainBatches(
        data,
        rows,
        config=config,
        augment=build_augment(config, num_images=len(rows)),
        runtime=runtime,
    )
    share = train_batches.largest_share
    stepper = Stepper(
        model=model,
        network=torch.compile(model) if config.compile else model,
        optimizer=build_optimizer(model, stages, config, device=runtime.device),
        loss=build_loss(config, labels=data.labels[rows], num_classes=len(data.class_names), device=runtime.device),
        auxiliary_weight=auxiliary_weight(config.arch),
        precision=Precision(config.precision, device=runtime.device),
        preprocess=preprocess,
        runtime=runtime,
        kind=data.kind,
        grad_clip_norm=config.grad_clip_norm,
        micro_batch_size=min(share, config.micro_batch_size or share),
    )
    trial = TrialState(
        config=config,
        runtime=runtime,
        kind=data.kind,
        class_names=data.class_names,
        model=model,
        stages=stages,
        ema=Ema(model, decay=config.ema_decay) if config.ema_decay > 0 else None,
        stepper=stepper,
        train_batches=train_batches,
        val_batches=EvalBatches(
            data,
            splits.val,
            device=runtime.device,
            rank=runtime.rank,
            world_size=runtime.world_size,
            num_threads=runtime.num_threads or 1,
        ),
    )
    if runtime.rank == 0 and runtime.trial_dir is not None:
        trial.attempt = Attempt(TrialFiles(runtime.trial_dir))  # first: what is read now stays the newest
    if not restore(trial):
        stepper.fit_micro_batch(_blank_batch(data, share, device=runtime.device))
    return trial


def check_labels(config: TrialConfig, kind: LabelKind) -> None:
    """Whether metric, loss and sampling are defined for such labels.

    Raises:
        ConfigError: naming those that are.
    """
    if config.metric not in metrics_of(kind):
        raise ConfigError(
            f"task.metric: {config.metric} is not defined for {kind} labels; use one of {', '.join(metrics_of(kind))}"
        )
    check_loss(config, kind)
    check_sampling(config, kind)


@lru_cache(maxsize=2)
def load_task(data: DataConfig, split: SplitConfig) -> tuple[ImageData, Splits, tuple[list[float], list[float]]]:
    """Images, splits, and mean and deviation of the training images; kept for the next trial of this process."""
    images = load_data(data)
    splits = make_splits(images, split)
    return images, splits, images.channel_statistics(splits.train)


def snapshot(trial: TrialState) -> dict[str, Any]:
    """Everything that continuing needs. Schedule and random streams are functions of seed, epoch and history alone.

    After the last epoch nothing is left to continue: then the history is enough, for a report that was lost.
    """
    state: dict[str, Any] = {
        "config_digest": config_digest(trial.config),
        "seed": trial.config.seed,
        "epoch": len(trial.history),
        "history": trial.history,
    }
    if is_over(trial.config, trial.history):
        return state
    own: dict[str, Any] = _without_neighbours(
        {
            "model": trial.model.state_dict(),
            "optimizer": trial.stepper.optimizer.state_dict(),
            "scaler": trial.stepper.precision.scaler.state_dict(),
            "ema": None if trial.ema is None else trial.ema.state_dict(),
            "micro_batch_size": trial.stepper.micro_batch_size,
        }
    )
    return state | own


def _without_neighbours(state: Any) -> Any:
    """The same with copies of tensors that are parts of a larger piece of memory, which `torch.save` writes whole."""
    if isinstance(state, Mapping):
        return {key: _without_neighbours(value) for key, value in state.items()}
    if isinstance(state, list):
        return [_without_neighbours(value) for value in state]
    if isinstance(state, Tensor) and state.untyped_storage().nbytes() > state.numel() * state.element_size():
        return state.clone()
    return state


def restore(trial: TrialState) -> bool:
    """Loads the trial's newest checkpoint that is sound; whether there is one.

    Raises:
        CheckpointError: if it was written under another configuration, or the workers do not read the same.
    """
    runtime = trial.runtime
    if runtime.trial_dir is None:
        return False
    files = TrialFiles(runtime.trial_dir)
    files.fetch()
    state, damaged = newest_checkpoint(files, device=runtime.device)
    epoch = 0 if state is None else int(state["epoch"])
    if damaged and runtime.rank == 0:
        fetch_file(files.recovery)
        with files.recovery.open("a", encoding="utf-8") as told:
            told.writelines(f"{line}; went on from epoch {epoch}\n" for line in damaged)
        publish(files.recovery)
    if runtime.sum_over_ranks(torch.tensor(float(epoch), device=runtime.device)).item() != epoch * runtime.world_size:
        raise CheckpointError(
            f"{files.checkpoint}: the workers read different checkpoints (this one epoch {epoch}); the folder of "
            "results must be the same for all nodes"
        )
    if state is None:
        return False
    if state["config_digest"] != config_digest(trial.config):
        raise CheckpointError(
            f"{files.checkpoint}: written under another configuration of this trial; delete it to train the trial anew"
        )
    trial.history = state["history"]
    if "model" in state:
        _load(trial, state)
    return True


def _load(trial: TrialState, state: Mapping[str, Any]) -> None:
    trial.model.load_state_dict(state["model"])
    for epoch in range(state["epoch"]):  # the optimizer gets the groups that it had when it was saved
        trial.start_epoch(epoch)
    trial.stepper.optimizer.load_state_dict(state["optimizer"])
    trial.stepper.precision.scaler.load_state_dict(state["scaler"])
    trial.stepper.micro_batch_size = state["micro_batch_size"]
    if trial.ema is not None:
        trial.ema.load_state_dict(state["ema"])


def is_over(config: TrialConfig, history: list[EpochMetrics]) -> bool:
    """Whether a trial with these epochs behind it has ended: all are done, or `patience` is used up."""
    if len(history) >= (config.refit_epochs or config.max_epochs):
        return True
    if config.patience is None or not history:
        return False
    return len(history) - history[-1]["best_epoch"] >= config.patience


def config_digest(config: TrialConfig) -> str:
    """Identifies what a trial trains; two trials with the same digest train the same."""
    return hashlib.blake2b(config.model_dump_json().encode(), digest_size=8).hexdigest()


def _build_network(
    config: TrialConfig, data: ImageData, statistics: tuple[list[float], list[float]], *, device: torch.device
) -> tuple[nn.Module, Preprocess]:
    _, height, _, in_chans = data.shape
    spec = input_spec(config, data_mean_std=statistics, in_chans=in_chans, image_size=height)
    seed_torch(stream_seed(config.seed, Stream.INITIALISATION), device)
    model = build_model(
        config,
        num_classes=len(data.class_names),
        in_chans=in_chans,
        image_size=spec.size,
        class_names=data.class_names,
    )
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    model = model.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
    preprocess = Preprocess(
        size=spec.size,
        mean=spec.mean,
        std=spec.std,
        interpolation=spec.interpolation,
        device=device,
        channels_last=config.channels_last,
    )
    return model, preprocess


def _blank_batch(data: ImageData, share: int, *, device: torch.device) -> Batch:
    """A batch of the largest size a worker gets, of the shapes that training will have."""
    _, height, width, in_chans = data.shape
    images = torch.zeros(share, height, width, in_chans, device=device).permute(0, 3, 1, 2)
    targets = torch.zeros(share, len(data.class_names), device=device)
    if data.kind != "multilabel":
        targets[:, 0] = 1.0
    return Batch(images=images, targets=targets, global_size=share)
