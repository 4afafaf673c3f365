"""The shared training function. It knows no cluster: whatever surrounds it arrives as a `Runtime`."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch

from trainables.checkpoint import TrialFiles, save_best_weights, save_checkpoint
from trainables.config import TrialConfig
from trainables.errors import DivergedError
from trainables.evaluate import evaluate
from trainables.finetune import train_mode
from trainables.lr_schedules import lr_factor
from trainables.metric_names import is_better
from trainables.optim import set_lr
from trainables.reading import Reading
from trainables.runtime import Runtime
from trainables.seeds import Stream, seed_torch, stream_seed
from trainables.trial_log import TrialLog
from trainables.trial_state import EpochMetrics, TrialState, is_over, snapshot, start_trial


def train(config: TrialConfig, runtime: Runtime) -> EpochMetrics:
    """Trains one trial from its last checkpoint, or from the start, to `max_epochs` or until `patience` is used up.

    After every epoch the state is saved first and reported second, so an epoch that was reported is never lost; on
    resume the epochs already done are reported again, since their reports may have been. A damaged checkpoint is passed
    over: the trial goes on from the one before, or begins anew, and says so in `recovery.txt`.

    Returns:
        The metrics of the last epoch; among them `score`, the best value of `config.metric` so far, and `best_epoch`.
        With `refit_epochs` nothing is validated: then there is no `score`, and the best epoch is the last.

    Raises:
        DivergedError: if a loss becomes NaN or infinite.
        OutOfMemoryError: if not even one image at a time fits into memory.
        CheckpointError: if the checkpoint in `runtime.trial_dir` is another trial's.
        ConfigError, DataError, ModelError: if the trial cannot be set up as configured.
    """
    trial = start_trial(config, runtime)
    first_epoch = len(trial.history)
    with TrialLog(runtime.trial_dir if runtime.rank == 0 else None, config, first_epoch=first_epoch) as log:
        for past in range(first_epoch):
            runtime.report(trial.history[past], last=is_over(config, trial.history[: past + 1]))
        for epoch in range(first_epoch, config.max_epochs):
            if is_over(config, trial.history):
                break
            metrics = train_one_epoch(trial, epoch=epoch)
            average_statistics(trial)
            if config.refit_epochs is None:
                metrics |= validate(trial)
            keep(trial, metrics)
            log.add_epoch(epoch + 1, metrics)
            runtime.report(metrics, last=is_over(config, trial.history))  # the scheduler may end the trial here
    return trial.history[-1]


def train_one_epoch(trial: TrialState, *, epoch: int) -> EpochMetrics:
    """One pass over the training split; loss and accuracy are of the images as they were varied and mixed."""
    config, runtime, stepper = trial.config, trial.runtime, trial.stepper
    trial.start_epoch(epoch)
    train_mode(trial.model)
    # Keyed by epoch, so the epoch number is all of the random state that a resume needs.
    seed_torch(stream_seed(config.seed, Stream.MODEL, epoch, runtime.rank), runtime.device)
    sums = torch.zeros(3, dtype=torch.float64, device=runtime.device)
    started = time.perf_counter()
    reading = Reading(trial.train_batches.epoch(epoch))
    for step, batch in enumerate(reading):
        set_lr_of_step(trial, epoch=epoch, step=step)
        sums += stepper.step(batch)
        if trial.ema is not None:
            trial.ema.update(trial.model)
    totals = runtime.sum_over_ranks(sums).tolist()
    return epoch_metrics(trial, totals, epoch=epoch, seconds=time.perf_counter() - started, read_s=reading.seconds)


def set_lr_of_step(trial: TrialState, *, epoch: int, step: int) -> None:
    """Sets the learning rate of the middle of a step; epoch and step are counted from 0."""
    config = trial.config
    moment = epoch + (step + 0.5) / trial.train_batches.num_steps(epoch)
    set_lr(trial.stepper.optimizer, config.lr * lr_factor(moment, config, trial.history))


def epoch_metrics(
    trial: TrialState, totals: Sequence[float], *, epoch: int, seconds: float, read_s: float
) -> EpochMetrics:
    """What is told of an epoch of training, counted from 0.

    Args:
        totals: loss, correctly classified, images, each summed over the epoch.
        read_s: of the seconds, those in which images were read and augmented.
    """
    loss, correct, count = totals
    stepper = trial.stepper
    return {
        "epoch": epoch + 1,
        "train_loss": loss / count,
        "train_exact_match" if trial.kind == "multilabel" else "train_top1": correct / count,
        "lr": max(group["lr"] for group in stepper.optimizer.param_groups),
        "images_per_s": count / seconds,
        "train_s": seconds,
        "read_s": read_s,
        "micro_batch_size": stepper.micro_batch_size,
    }


def validate(trial: TrialState) -> EpochMetrics:
    """Metrics of the whole validation split."""
    started = time.perf_counter()
    found = _evaluate_within_memory(trial)
    metrics = {f"val_{name}": value for name, value in found.items() if name != "count"}
    return metrics | {"val_s": time.perf_counter() - started}


def keep(trial: TrialState, metrics: EpochMetrics) -> None:
    """Adds an epoch to the history and, on rank 0, saves the state and the weights of a new best epoch.

    Raises:
        DivergedError: if a loss of the epoch is NaN or infinite; nothing of that epoch is saved.
        SupersededError: if another process trains the trial by now.
    """
    for name in {"train_loss", "val_loss"} & metrics.keys():
        if not math.isfinite(metrics[name]):
            raise DivergedError(
                f"{name} became {metrics[name]} in epoch {metrics['epoch']:.0f}; a lower lr, a longer warm-up or "
                f"grad_clip_norm usually helps"
            )
    is_best = _is_best(trial, metrics)
    if trial.config.refit_epochs is None:
        metrics["score"] = metrics[trial.config.metric] if is_best else trial.history[-1]["score"]
    metrics["best_epoch"] = metrics["epoch"] if is_best else trial.history[-1]["best_epoch"]
    trial.history.append(metrics)
    if trial.attempt is None or trial.runtime.trial_dir is None:
        return
    trial.attempt.require()
    files = TrialFiles(trial.runtime.trial_dir)
    if is_best:
        save_best_weights(files, trial.kept_model.state_dict(), metrics=metrics)
    save_checkpoint(files, snapshot(trial))


def average_statistics(trial: TrialState) -> None:
    """Gives all ranks the mean of their running statistics, so that they validate and keep the same model."""
    if trial.runtime.world_size == 1:
        return
    models = [trial.model] if trial.ema is None else [trial.model, trial.ema.module]
    with torch.no_grad():
        for buffer in (buffer for model in models for buffer in model.buffers() if buffer.is_floating_point()):
            buffer.copy_(trial.runtime.sum_over_ranks(buffer) / trial.runtime.world_size)


def _evaluate_within_memory(trial: TrialState) -> dict[str, float]:
    """Ranks only meet when all are done, so each may have batches of its own size."""
    return trial.val_batches.within_memory(
        lambda: evaluate(
            trial.kept_model,
            trial.val_batches,
            num_images=trial.val_batches.num_images,
            kind=trial.kind,
            num_classes=len(trial.class_names),
            preprocess=trial.stepper.preprocess,
            precision=trial.stepper.precision,
            runtime=trial.runtime,
        )
    )


def _is_best(trial: TrialState, metrics: EpochMetrics) -> bool:
    if not trial.history or trial.config.refit_epochs is not None:
        return True
    metric, best = trial.config.metric, trial.history[int(trial.history[-1]["best_epoch"]) - 1]
    if metrics[metric] == best[metric]:  # accuracy ties often on small sets: the surer model wins
        return metrics["val_loss"] < best["val_loss"]
    return is_better(metrics[metric], best[metric], metric=metric)
