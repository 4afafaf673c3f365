"""One optimizer step on a global batch, passed through the network in micro-batches that fit into memory.

Running out of memory changes speed, never results: the batch stays what the configuration says, losses are sums
divided by its size, and a step that failed is done again from its own beginning. Only what depends on the
micro-batch itself differs, as it does between any two devices: BatchNorm's statistics, and the order in which dropout
draws its masks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainables.batches import Batch
from trainables.errors import OutOfMemoryError, first_line
from trainables.losses import Loss
from trainables.memory import fewest_parts, is_out_of_memory, memory_is_limited, release_memory
from trainables.metric_names import LabelKind
from trainables.models import split_outputs
from trainables.precision import Precision
from trainables.preprocess import Preprocess
from trainables.runtime import Runtime


@dataclass
class Stepper:
    """Takes optimizer steps.

    Attributes:
        model: owns the weights; `network` is the same model as it is called.
        auxiliary_weight: weight of the losses of auxiliary heads, where the network has some.
        preprocess: at the network's full size; `train_preprocess` at that of the current epoch.
        micro_batch_size: most images passed through the network at once; lowered when they do not fit.
    """

    model: nn.Module
    network: Callable[[Tensor], Tensor | tuple[Tensor | None, ...]]
    optimizer: Optimizer
    loss: Loss
    auxiliary_weight: float
    precision: Precision
    preprocess: Preprocess
    runtime: Runtime
    kind: LabelKind
    grad_clip_norm: float | None
    micro_batch_size: int

    def __post_init__(self) -> None:
        self.train_preprocess = self.preprocess
        self._last_shortage = ""
        self._guarded = memory_is_limited(self.runtime.device)

    def step(self, batch: Batch) -> Tensor:
        """Moves the weights once.

        Returns:
            Sums over this rank's images, (3,) float64: loss, correctly classified (all labels right, for multi-label),
            images.

        Raises:
            OutOfMemoryError: if not even one image at a time fits.
        """
        sums = self._gradients_within_memory(batch)
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.runtime.sum_gradients(parameters)
        self.precision.step(self.optimizer, parameters=parameters, grad_clip_norm=self.grad_clip_norm)
        return sums

    def fit_micro_batch(self, batch: Batch) -> None:
        """Finds, before training, the largest micro-batch that fits, and leaves model and random state as they were.

        Raises:
            OutOfMemoryError: if not even one image at a time fits.
        """
        if not self._guarded:
            return
        # The optimizer's state comes with the first step; twice the weights is what Adam takes.
        weights = sum(parameter.numel() * parameter.element_size() for parameter in self.model.parameters())

        def fits(size: int) -> bool:
            part = Batch(batch.images[:size], batch.targets[:size], global_size=size)
            sums = self._attempt(part, micro_batch_size=size, reserve_bytes=2 * weights)
            self._back_to(before)
            return not self._on_any_rank(sums is None)

        before = self._snapshot()
        parts = fewest_parts(min(self.micro_batch_size, len(batch.images)), fits=fits)
        if parts is None:
            raise self._no_image_fits()
        self.micro_batch_size = -(-min(self.micro_batch_size, len(batch.images)) // parts)

    def _gradients_within_memory(self, batch: Batch) -> Tensor:
        before = self._snapshot() if self._guarded else None
        while True:
            sums = self._attempt(batch, micro_batch_size=self.micro_batch_size)
            if not self._on_any_rank(sums is None):
                assert sums is not None
                return sums
            del sums
            if before is None:  # no limit was known beforehand: the step goes on from the state it has reached
                before = self._snapshot()
            self._back_to(before)
            if self.micro_batch_size == 1:
                raise self._no_image_fits()
            self.micro_batch_size = -(-min(self.micro_batch_size, self._largest_share(batch)) // 2)

    def _largest_share(self, batch: Batch) -> int:
        """Images of a batch that a rank has at most; the same on all, which so lower their micro-batches alike."""
        return -(-batch.global_size // self.runtime.world_size)

    def _attempt(self, batch: Batch, *, micro_batch_size: int, reserve_bytes: int = 0) -> Tensor | None:
        """The sums of a step whose gradients are in place; None where memory ran out, with so much held back."""
        try:
            _reserved = torch.empty(reserve_bytes, dtype=torch.uint8, device=self.runtime.device)
            return self._forward_backward(batch, micro_batch_size=micro_batch_size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._last_shortage = first_line(error)
        return None

    def _forward_backward(self, batch: Batch, *, micro_batch_size: int) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        sums = torch.zeros(3, dtype=torch.float64, device=self.runtime.device)
        for images, targets in batch.micro_batches(micro_batch_size):
            with self.precision.autocast():
                logits, auxiliary = split_outputs(self.network(self.train_preprocess(images)))
            loss = self.loss(logits, targets)
            total = loss
            for extra in auxiliary:
                total = total + self.auxiliary_weight * self.loss(extra, targets)
            # Gradients are summed over micro-batches and ranks: together they are the mean over the global batch.
            self.precision.backward(total / batch.global_size)
            sums += step_sums(loss, logits, targets, kind=self.kind)
        return sums

    def _on_any_rank(self, failed: bool) -> bool:
        if self.runtime.world_size == 1:
            return failed
        flag = torch.tensor(float(failed), device=self.runtime.device)
        return bool(self.runtime.sum_over_ranks(flag).item() > 0)

    def _snapshot(self) -> tuple[list[Tensor], Tensor, Tensor | None]:
        """What an attempt changes besides gradients: running statistics, and the random state that draws dropout."""
        cuda = torch.cuda.get_rng_state(self.runtime.device) if self.runtime.device.type == "cuda" else None
        return [buffer.clone() for buffer in self.model.buffers()], torch.get_rng_state(), cuda

    def _back_to(self, before: tuple[list[Tensor], Tensor, Tensor | None]) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        release_memory(self.runtime.device)
        buffers, cpu, cuda = before
        with torch.no_grad():
            for buffer, value in zip(self.model.buffers(), buffers, strict=True):
                if buffer.shape == value.shape:  # else a constant that the network worked out from the images' size
                    buffer.copy_(value)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, self.runtime.device)

    def _no_image_fits(self) -> OutOfMemoryError:
        return OutOfMemoryError(
            f"arch: not even one image at a time fits into the memory of {self.runtime.device}; use a smaller "
            f"architecture, a smaller input_size, precision: bf16, or a larger device ({self._last_shortage})"
        )


@torch.no_grad()
def step_sums(loss: Tensor, logits: Tensor, targets: Tensor, *, kind: LabelKind) -> Tensor:
    """Loss, correct and number of images, (3,) float64; of mixed images the larger part decides what is correct."""
    if kind == "multilabel":
        correct = ((logits > 0) == (targets > 0.5)).all(dim=1).sum()
    else:
        classes = targets if targets.ndim == 1 else targets.argmax(dim=1)
        correct = (logits.argmax(dim=1) == classes).sum()
    count = torch.full((), len(targets), dtype=torch.float64, device=logits.device)  # a copy would wait for a GPU
    return torch.stack([loss.detach().double(), correct.double(), count])
