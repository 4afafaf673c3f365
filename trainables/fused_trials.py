"""Trials of one architecture and batch size, trained together for an epoch: one forward and backward pass for all."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from trainables.batches import Batch
from trainables.errors import OutOfMemoryError
from trainables.evaluate import judge, judged_metrics
from trainables.fused_losses import FusedLoss
from trainables.fused_network import Engine, Rates, fused_network
from trainables.fused_optim import clip_gradients, fused_optimizer
from trainables.memory import is_out_of_memory, memory_is_limited, release_memory
from trainables.metric_names import LabelKind
from trainables.reading import Reading
from trainables.seeds import Stream, stream_seed
from trainables.stack import Stack
from trainables.step import step_sums
from trainables.train import epoch_metrics, set_lr_of_step, validate
from trainables.trial_state import EpochMetrics, TrialState


@dataclass(frozen=True)
class _Part:
    """Slots that pass through the network at once; all of them where memory allows."""

    rows: slice
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    rates: Rates
    loss: FusedLoss


class SlotError(Exception):
    """The images of one slot could not be drawn; the cause says why."""

    def __init__(self, slot: int) -> None:
        super().__init__(slot)
        self.slot = slot


class FusedTrials:
    """Trials whose weights lie in one stack from now on; between epochs each can be used as any other trial.

    Order of the images, augmentation, mixing, dropout masks, learning rate, weight decay, momentum, clipping, loss and
    averaging of each trial are those that it has alone, so its curve is too, up to the rounding of sums that are taken
    in another order. Their epochs may differ; their images' number and size in these epochs must not.

    Args:
        trials: at least one, all with the same `trainables.fusable.fusion_key` at their next epochs.
        engine: how their networks are fused.
    """

    def __init__(self, trials: Sequence[TrialState], *, engine: Engine) -> None:
        self.trials = tuple(trials)
        first = trials[0].stepper
        self._device = trials[0].runtime.device
        self._precision = first.precision
        self._network = fused_network(engine, trials[0].model)
        self._models: list[nn.Module] = [trial.model for trial in trials]
        self._stack = Stack(self._models)
        self._optimizer = fused_optimizer(self._stack, [trial.stepper.optimizer for trial in trials])
        self._guarded = memory_is_limited(self._device)
        self._generators = [torch.Generator(self._device) for _ in trials]
        self._slots_at_once = len(trials)
        self._parts = self._make_parts()

    def train_epoch(self, *, steps: int | None = None) -> list[EpochMetrics]:
        """Trains each trial for its next epoch.

        Args:
            steps: ends the epoch after so many, for whoever wants to know how long they take; by default there are all.

        Returns:
            What `train_one_epoch` returns of each; its seconds are its share of those that all of them took together.

        Raises:
            OutOfMemoryError: if not even one trial at a time fits into memory.
        """
        epochs = [len(trial.history) for trial in self.trials]
        for trial, epoch, generator in zip(self.trials, epochs, self._generators, strict=True):
            trial.start_epoch(epoch)
            generator.manual_seed(stream_seed(trial.config.seed, Stream.MODEL, epoch, 0))
        sums = torch.zeros(len(self.trials), 3, dtype=torch.float64, device=self._device)
        started = time.perf_counter()
        batches = zip(
            *(_of_slot(slot, self.trials[slot].train_batches.epoch(epoch)) for slot, epoch in enumerate(epochs)),
            strict=True,
        )
        reading = Reading(islice(batches, steps))
        for step, together in enumerate(reading):
            for trial, epoch in zip(self.trials, epochs, strict=True):
                set_lr_of_step(trial, epoch=epoch, step=step)
            sums += self._step(together)
            for trial in self.trials:
                if trial.ema is not None:
                    trial.ema.update(trial.model)
        self._optimizer.sync()
        totals, seconds = sums.tolist(), time.perf_counter() - started
        found = [
            epoch_metrics(trial, own, epoch=epoch, seconds=seconds, read_s=reading.seconds / len(self.trials))
            for trial, own, epoch in zip(self.trials, totals, epochs, strict=True)
        ]
        share_s = seconds / len(self.trials)  # of the device's time
        return [metrics | {"train_s": share_s} for metrics in found]

    def validate(self) -> list[EpochMetrics]:
        """What `validate` returns of each trial; those with averaged weights are validated one by one."""
        one_by_one = any(trial.ema is not None for trial in self.trials)
        found = None if one_by_one else self._validate_together()
        return [validate(trial) for trial in self.trials] if found is None else found

    def _step(self, batches: Sequence[Batch]) -> Tensor:
        """One step of every slot; (num_slots, 3) float64, as `Stepper.step` gives them."""
        before = self._snapshot() if self._guarded else None
        while True:
            sums = self._attempt(batches)
            if sums is not None:
                break
            if before is None or self._slots_at_once == 1:
                raise OutOfMemoryError(
                    f"resources: not even one of {len(self.trials)} trials at a time fits into the memory of "
                    f"{self._device}; lower trials_per_device or batch_size"
                )
            self._back_to(before)
        clip_gradients(self._stack, [trial.config.grad_clip_norm for trial in self.trials])
        self._optimizer.step()
        return sums

    def _attempt(self, batches: Sequence[Batch]) -> Tensor | None:
        """The sums of a step whose gradients are in place; None where memory ran out."""
        try:
            return self._forward_backward(batches)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        return None

    def _forward_backward(self, batches: Sequence[Batch]) -> Tensor:
        images, targets = self._inputs(batches), [batch.targets for batch in batches]
        found = []
        for part in self._parts:
            rows = part.rows
            self._network.take(part.rates, self._generators[rows])
            with self._precision.autocast():
                logits = self._network(images[rows], parameters=part.parameters, buffers=part.buffers, training=True)
            losses = part.loss(logits, targets[rows])
            # A slot's parameters take part in its own loss only, so the gradient of the sum is the gradient of each.
            self._stack.differentiate(losses.sum() / batches[0].global_size, part.parameters, rows=rows)
            found.append(_sums(losses, logits, targets[rows], kind=self.trials[0].kind))
        return torch.cat(found)

    def _inputs(self, batches: Sequence[Batch]) -> Tensor:
        """Normalised images, (num_slots, B, C, H, W); each slot's channels-last."""
        images = [batch.images for batch in batches]
        if len({each.dtype for each in images}) > 1:  # some are mixed
            images = [each.float() for each in images]
        rows = torch.cat([each.permute(0, 2, 3, 1) for each in images]).permute(0, 3, 1, 2)
        ready = self.trials[0].stepper.train_preprocess(rows)
        return ready.view(len(images), -1, *ready.shape[1:])

    @torch.inference_mode()
    def _validate_together(self) -> list[EpochMetrics] | None:
        """None where memory ran out."""
        first, num_slots = self.trials[0], len(self.trials)
        whole = slice(0, num_slots)
        parameters, buffers = self._stack.values(whole), self._stack.buffers(whole)
        judged: list[list[Tensor]] = [[] for _ in self.trials]
        started = time.perf_counter()
        try:
            for images, targets in first.val_batches:
                ready = first.stepper.preprocess(images)
                with self._precision.autocast():
                    logits = self._network(
                        ready.expand(num_slots, *ready.shape), parameters=parameters, buffers=buffers, training=False
                    )
                for rows, own in zip(judged, logits, strict=True):
                    rows.append(judge(own, targets, kind=first.kind))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return None
        found = []
        for rows in judged:
            metrics = judged_metrics(torch.cat(rows).cpu().numpy(), kind=first.kind, num_classes=len(first.class_names))
            found.append({f"val_{name}": value for name, value in metrics.items() if name != "count"})
        seconds = (time.perf_counter() - started) / num_slots
        return [metrics | {"val_s": seconds} for metrics in found]

    def _make_parts(self) -> list[_Part]:
        starts = range(0, len(self.trials), self._slots_at_once)
        return [self._part(slice(at, min(at + self._slots_at_once, len(self.trials)))) for at in starts]

    def _part(self, rows: slice) -> _Part:
        return _Part(
            rows=rows,
            parameters=self._stack.leaves(rows),
            buffers=self._stack.buffers(rows),
            rates=self._network.rates(self._models[rows]),
            loss=FusedLoss([trial.stepper.loss for trial in self.trials[rows]], device=self._device),
        )

    def _snapshot(self) -> tuple[dict[str, Tensor], list[Tensor]]:
        return self._stack.snapshot(), [generator.get_state() for generator in self._generators]

    def _back_to(self, before: tuple[dict[str, Tensor], list[Tensor]]) -> None:
        """Undoes an attempt, and passes half as many slots at once from now on."""
        release_memory(self._device)
        buffers, states = before
        self._stack.back_to(buffers)
        for generator, state in zip(self._generators, states, strict=True):
            generator.set_state(state)
        self._slots_at_once = -(-self._slots_at_once // 2)
        self._parts = self._make_parts()


@torch.no_grad()
def _sums(losses: Tensor, logits: Tensor, targets: Sequence[Tensor], *, kind: LabelKind) -> Tensor:
    """`step_sums` of each slot, (num_slots, 3) float64."""
    if kind == "multilabel":
        return torch.stack([step_sums(*own, kind=kind) for own in zip(losses, logits, targets, strict=True)])
    classes = torch.stack([each if each.ndim == 1 else each.argmax(dim=1) for each in targets])
    correct = (logits.argmax(dim=2) == classes).sum(dim=1)
    count = torch.full_like(losses, classes.shape[1], dtype=torch.float64)
    return torch.stack([losses.double(), correct.double(), count], dim=1)


def _of_slot(slot: int, batches: Iterator[Batch]) -> Iterator[Batch]:
    try:
        yield from batches
    except Exception as error:
        raise SlotError(slot) from error
