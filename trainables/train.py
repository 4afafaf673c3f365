"""The shared training function. It knows no cluster: whatever surrounds it arrives as a `Runtime`."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainables.augment import build_augment
from trainables.batches import EvalBatches, Normalizer, TrainBatches, channel_statistics
from trainables.checkpoint import TrialFiles, load_checkpoint, save_checkpoint, save_weights
from trainables.config import DataConfig, SplitConfig, TrialConfig, is_better
from trainables.data import ImageData, Splits, load_data, make_splits
from trainables.errors import CheckpointError, ConfigError, DivergedError
from trainables.evaluate import correct_in_top, evaluate
from trainables.losses import cross_entropy_sum
from trainables.models import build_model, input_statistics
from trainables.optim import build_optimizer, lr_factor, set_lr
from trainables.precision import Precision
from trainables.runtime import Runtime
from trainables.seeds import Stream, stream_seed
from trainables.trial_log import TrialLog

EpochMetrics = dict[str, float]


def train(config: TrialConfig, runtime: Runtime) -> EpochMetrics:
    """Trains one trial from its last checkpoint, or from the start, to `max_epochs`.

    After every epoch the state is saved first and reported second, so an epoch that was reported is never lost; on
    resume the epochs already done are reported again, since their reports may have been.

    Returns:
        The metrics of the last epoch; among them `score`, the best value of `config.metric` so far, and `best_epoch`.

    Raises:
        DivergedError: if a loss becomes NaN or infinite.
        CheckpointError: if the checkpoint in `runtime.trial_dir` is damaged or another trial's.
        ConfigError, DataError, ModelError: if the trial cannot be set up as configured.
    """
    trial = start_trial(config, runtime)
    first_epoch = len(trial.history)
    with TrialLog(runtime.trial_dir if runtime.rank == 0 else None, config, first_epoch=first_epoch) as log:
        for metrics in trial.history:
            runtime.report(metrics)
        for epoch in range(first_epoch, config.max_epochs):
            metrics = train_one_epoch(trial, epoch=epoch)
            metrics |= validate(trial)
            keep(trial, metrics)
            log.add_epoch(epoch + 1, metrics)
            runtime.report(metrics)  # the scheduler may end the trial here
    return trial.history[-1]


@dataclass
class TrialState:
    """A trial in training. `model` owns the weights; `network` is the same model as the loop calls it."""

    config: TrialConfig
    runtime: Runtime
    model: nn.Module
    network: nn.Module
    optimizer: Optimizer
    precision: Precision
    normalize: Normalizer
    train_batches: TrainBatches
    val_batches: EvalBatches
    history: list[EpochMetrics] = field(default_factory=list)


def start_trial(config: TrialConfig, runtime: Runtime) -> TrialState:
    """Builds everything the loop needs, and restores it from the trial's checkpoint if there is one."""
    if config.batch_size < runtime.world_size:
        raise ConfigError(
            f"batch_size: {config.batch_size} images cannot be split over {runtime.world_size} workers; raise it"
        )
    if runtime.num_threads is not None:
        torch.set_num_threads(runtime.num_threads)
    device = runtime.device
    data, splits, statistics = load_task(config.data, config.split)
    augment = build_augment(config, num_images=len(splits.train))

    torch.manual_seed(stream_seed(config.seed, Stream.INITIALISATION))
    in_chans, image_size = data.images.shape[3], data.images.shape[1]
    model = build_model(config, num_classes=len(data.class_names), in_chans=in_chans, image_size=image_size)
    model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean, std = input_statistics(config, statistics, in_chans)

    trial = TrialState(
        config=config,
        runtime=runtime,
        model=model,
        network=model,
        optimizer=build_optimizer(model, config, device=device),
        precision=Precision(config.precision, device=device),
        normalize=Normalizer(mean, std, device=device),
        train_batches=TrainBatches(
            data,
            splits.train,
            augment=augment,
            batch_size=config.batch_size,
            seed=config.seed,
            rank=runtime.rank,
            world_size=runtime.world_size,
            device=device,
        ),
        val_batches=EvalBatches(data, splits.val, rank=runtime.rank, world_size=runtime.world_size, device=device),
    )
    restore(trial)
    trial.network = runtime.prepare_model(model)
    return trial


@lru_cache(maxsize=2)
def load_task(data: DataConfig, split: SplitConfig) -> tuple[ImageData, Splits, tuple[list[float], list[float]]]:
    """Images, splits, and mean and deviation of the training images; kept for the next trial of this process."""
    images = load_data(data)
    splits = make_splits(images, split)
    return images, splits, channel_statistics(images.images, splits.train)


def train_one_epoch(trial: TrialState, *, epoch: int) -> EpochMetrics:
    """One pass over the training split; loss and top-1 are of the augmented images, as they were seen."""
    config, runtime, batches = trial.config, trial.runtime, trial.train_batches
    # Keyed by epoch, so the epoch number is all of the random state that a resume needs.
    torch.manual_seed(stream_seed(config.seed, Stream.MODEL, epoch, runtime.rank))
    parameters = [parameter for parameter in trial.model.parameters() if parameter.requires_grad]
    sums = torch.zeros(3, dtype=torch.float64, device=runtime.device)
    trial.network.train()
    started = time.perf_counter()
    for step, batch in enumerate(batches.epoch(epoch)):
        set_lr(trial.optimizer, config.lr * lr_factor(epoch + (step + 0.5) / batches.steps_per_epoch, config))
        with trial.precision.autocast():
            logits = trial.network(trial.normalize(batch.images))
        loss_sum = cross_entropy_sum(logits, batch.labels, label_smoothing=config.label_smoothing)
        # Gradients are averaged over ranks; this makes that average the mean over the global batch, to the image.
        loss = loss_sum * (runtime.world_size / batch.global_size)
        trial.precision.backward_and_step(
            loss, trial.optimizer, parameters=parameters, grad_clip_norm=config.grad_clip_norm
        )
        sums += _step_sums(loss_sum, logits, batch.labels)
    loss, top1, count = runtime.sum_over_ranks(sums).tolist()
    seconds = time.perf_counter() - started
    return {
        "epoch": epoch + 1,
        "train_loss": loss / count,
        "train_top1": top1 / count,
        "lr": trial.optimizer.param_groups[0]["lr"],
        "images_per_s": count / seconds,
        "train_s": seconds,
    }


def validate(trial: TrialState) -> EpochMetrics:
    """Metrics of the whole validation split."""
    started = time.perf_counter()
    found = evaluate(
        trial.model,
        trial.val_batches,
        normalize=trial.normalize,
        precision=trial.precision,
        runtime=trial.runtime,
    )
    return {
        "val_loss": found["loss"],
        "val_top1": found["top1"],
        "val_top5": found["top5"],
        "val_s": time.perf_counter() - started,
    }


def keep(trial: TrialState, metrics: EpochMetrics) -> None:
    """Adds an epoch to the history and, on rank 0, saves the state and the weights of a new best epoch.

    Raises:
        DivergedError: if a loss of the epoch is NaN or infinite; nothing of that epoch is saved.
    """
    for name in ("train_loss", "val_loss"):
        if not math.isfinite(metrics[name]):
            raise DivergedError(
                f"{name} became {metrics[name]} in epoch {metrics['epoch']:.0f}; a lower lr, a longer warm-up or "
                f"grad_clip_norm usually helps"
            )
    is_best = _is_best(trial, metrics)
    metrics["score"] = metrics[trial.config.metric] if is_best else trial.history[-1]["score"]
    metrics["best_epoch"] = metrics["epoch"] if is_best else trial.history[-1]["best_epoch"]
    trial.history.append(metrics)
    if trial.runtime.rank != 0 or trial.runtime.trial_dir is None:
        return
    files = TrialFiles(trial.runtime.trial_dir)
    if is_best:
        save_weights(files.best_weights, trial.model.state_dict(), metadata={"epoch": str(int(metrics["epoch"]))})
    save_checkpoint(files.checkpoint, snapshot(trial))


def snapshot(trial: TrialState) -> dict[str, Any]:
    """Everything that continuing needs. Schedule and random streams are functions of seed and epoch alone.

    After the last epoch nothing is left to continue: then the history is enough, for a report that was lost.
    """
    state: dict[str, Any] = {
        "config_digest": config_digest(trial.config),
        "seed": trial.config.seed,
        "epoch": len(trial.history),
        "history": trial.history,
    }
    if len(trial.history) == trial.config.max_epochs:
        return state
    return state | {
        "model": trial.model.state_dict(),
        "optimizer": trial.optimizer.state_dict(),
        "scaler": trial.precision.scaler.state_dict(),
    }


def restore(trial: TrialState) -> None:
    """Loads the trial's checkpoint, where there is one.

    Raises:
        CheckpointError: if it is damaged or was written under another configuration.
    """
    if trial.runtime.trial_dir is None:
        return
    path = TrialFiles(trial.runtime.trial_dir).checkpoint
    state = load_checkpoint(path, device=trial.runtime.device)
    if state is None:
        return
    if state["config_digest"] != config_digest(trial.config):
        raise CheckpointError(
            f"{path}: written under another configuration of this trial; delete it to train the trial anew"
        )
    trial.history = state["history"]
    if "model" in state:
        trial.model.load_state_dict(state["model"])
        trial.optimizer.load_state_dict(state["optimizer"])
        trial.precision.scaler.load_state_dict(state["scaler"])


def config_digest(config: TrialConfig) -> str:
    """Identifies what a trial trains; two trials with the same digest train the same."""
    return hashlib.blake2b(config.model_dump_json().encode(), digest_size=8).hexdigest()


def _is_best(trial: TrialState, metrics: EpochMetrics) -> bool:
    if not trial.history:
        return True
    metric, best = trial.config.metric, trial.history[int(trial.history[-1]["best_epoch"]) - 1]
    if metrics[metric] == best[metric]:  # accuracy ties often on small sets: the surer model wins
        return metrics["val_loss"] < best["val_loss"]
    return is_better(metrics[metric], best[metric], metric=metric)


def _step_sums(loss_sum: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    count = torch.tensor(len(labels), dtype=torch.float64, device=logits.device)
    with torch.no_grad():
        return torch.stack([loss_sum.detach().double(), correct_in_top(logits, labels, k=1).double(), count])
