"""One optimizer step for all slots, each with its own learning rate, weight decay and momentum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from trainables.stack import Stack

_CLIP_EPS = 1e-6  # as in torch.nn.utils.clip_grad_norm_


class FusedOptimizer(Protocol):
    """Moves the parameters of a stack by its gradients."""

    def step(self) -> None:
        """One step with the learning rates that the slots' own optimizers have at the moment."""

    def sync(self) -> None:
        """Brings the slots' own optimizers to the state that has been reached; called after an epoch."""


def fused_optimizer(stack: Stack, optimizers: Sequence[Optimizer], *, vectorised: bool | None = None) -> FusedOptimizer:
    """The optimizer of all slots.

    Args:
        optimizers: of the slots, over the parameters that are views of the stack.
        vectorised: whether AdamW and SGD, where all slots have the same, step with one operation for all slots rather
            than slot by slot. By default on GPUs, where many small kernels cost most; the CPU's own fused step
            passes through memory once, and is the faster there.
    """
    if vectorised is None:
        vectorised = stack.parameters.device.type != "cpu"
    if vectorised and all(type(each) is AdamW for each in optimizers):
        return StackedAdamW(stack, optimizers)
    if vectorised and all(type(each) is SGD for each in optimizers):
        return StackedSGD(stack, optimizers)
    return SlotBySlot(optimizers)


def clip_gradients(stack: Stack, max_norms: Sequence[float | None]) -> None:
    """Scales each slot's gradient to a norm of at most its own limit; None leaves it alone."""
    if all(each is None for each in max_norms):
        return
    limits = _of_slots([float("inf") if each is None else each for each in max_norms], stack)
    norms = torch.linalg.vector_norm(stack.gradients, dim=1, keepdim=True)
    stack.gradients.mul_((limits / (norms + _CLIP_EPS)).clamp(max=1.0))


def _of_slots(numbers: Sequence[float], stack: Stack) -> Tensor:
    """A number of each slot beside its parameters, (num_slots, 1), without waiting for what a GPU still has to do."""
    values = torch.tensor(numbers, dtype=torch.float64).to(stack.parameters.dtype)
    return values[:, None].to(stack.parameters.device, non_blocking=True)


class SlotBySlot:
    """The slots' own optimizers, one after the other: any kind, and different ones."""

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self._optimizers = optimizers

    def step(self) -> None:
        for optimizer in self._optimizers:
            optimizer.step()

    def sync(self) -> None:
        """Nothing is to be done."""


class _Stacked:
    """State as rows beside the parameters, which the slots' own optimizers see as theirs.

    Attributes:
        decay: (num_slots, P), weight decay of each scalar.
        lr_scale: likewise, its learning rate as a part of the slot's; None where it is 1 for all.
    """

    def __init__(self, stack: Stack, optimizers: Sequence[Optimizer]) -> None:
        self.stack = stack
        self.optimizers = optimizers
        self.decay = torch.zeros_like(stack.parameters)
        scale = torch.ones_like(stack.parameters)
        self._columns = [self._columns_of(row, optimizer) for row, optimizer in enumerate(optimizers)]
        for row, optimizer in enumerate(optimizers):
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    columns = self._columns[row][id(parameter)]
                    self.decay[row, columns] = group["weight_decay"]
                    scale[row, columns] = group["lr_scale"]
        self.lr_scale = None if bool((scale == 1).all()) else scale

    def column(self, key: str) -> Tensor:
        """A setting of each slot, (num_slots, 1)."""
        return _of_slots([each.param_groups[0][key] for each in self.optimizers], self.stack)

    def lr(self) -> Tensor:
        """Learning rates, (num_slots, 1) or (num_slots, P)."""
        groups = [optimizer.param_groups[0] for optimizer in self.optimizers]
        rates = _of_slots([group["lr"] / group["lr_scale"] for group in groups], self.stack)
        return rates if self.lr_scale is None else rates * self.lr_scale

    def adopt(self, key: str) -> Tensor:
        """A state of all scalars, (num_slots, P), with what the optimizers have of it; from now on theirs are views."""
        flat = torch.zeros_like(self.stack.parameters)
        for row, optimizer in enumerate(self.optimizers):
            parameters = {columns.start: each for each, columns in self._parameters(row)}
            for name, view in self.stack.views(flat, row=row):
                state = optimizer.state[parameters[self.stack.columns[name].start]]
                if state.get(key) is not None:
                    view.copy_(state[key])
                state[key] = view
        return flat

    def _parameters(self, row: int) -> list[tuple[Tensor, slice]]:
        groups = self.optimizers[row].param_groups
        return [(each, self._columns[row][id(each)]) for group in groups for each in group["params"]]

    def _columns_of(self, row: int, optimizer: Optimizer) -> dict[int, slice]:
        """Where each of an optimizer's parameters lies, by its identity; known by its address."""
        views = {view.data_ptr(): name for name, view in self.stack.views(self.stack.parameters, row=row)}
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        return {id(each): self.stack.columns[views[each.data_ptr()]] for each in parameters}


class StackedAdamW(_Stacked):
    """AdamW of all slots at once.

    Source: arXiv:1711.05101, in the order of operations of torch.optim.AdamW.
    """

    def __init__(self, stack: Stack, optimizers: Sequence[Optimizer]) -> None:
        super().__init__(stack, optimizers)
        self._mean, self._square = self.adopt("exp_avg"), self.adopt("exp_avg_sq")
        self._steps = [self._steps_of(optimizer) for optimizer in optimizers]

    @torch.no_grad()
    def step(self) -> None:
        weights, gradients, lr = self.stack.parameters, self.stack.gradients, self.lr()
        self._steps = [each + 1 for each in self._steps]
        beta1, beta2 = self.optimizers[0].param_groups[0]["betas"]
        eps = self.optimizers[0].param_groups[0]["eps"]
        first = _of_slots([1 - beta1**steps for steps in self._steps], self.stack)
        second = _of_slots([math.sqrt(1 - beta2**steps) for steps in self._steps], self.stack)
        weights.mul_(1 - lr * self.decay)
        self._mean.lerp_(gradients, 1 - beta1)
        self._square.mul_(beta2).addcmul_(gradients, gradients, value=1 - beta2)
        weights.sub_(self._mean / (self._square.sqrt().div_(second).add_(eps)) * (lr / first))

    def sync(self) -> None:
        for optimizer, steps in zip(self.optimizers, self._steps, strict=True):
            for state in optimizer.state.values():
                state["step"] = torch.tensor(float(steps), device=self.stack.parameters.device)

    @staticmethod
    def _steps_of(optimizer: Optimizer) -> int:
        """Steps so far: the same for all of a slot's parameters, which all train from the start."""
        return max((int(state["step"]) for state in optimizer.state.values() if "step" in state), default=0)


class StackedSGD(_Stacked):
    """SGD of all slots at once, with momentum, Nesterov's or plain, where a slot has some.

    Source: the order of operations of torch.optim.SGD.
    """

    def __init__(self, stack: Stack, optimizers: Sequence[Optimizer]) -> None:
        super().__init__(stack, optimizers)
        self._momentum = self.column("momentum")
        self._nesterov = self.column("nesterov") > 0
        self._buffer = self.adopt("momentum_buffer")

    @torch.no_grad()
    def step(self) -> None:
        weights = self.stack.parameters
        gradients = weights * self.decay + self.stack.gradients
        self._buffer.mul_(self._momentum).add_(gradients)
        update = torch.where(self._nesterov, gradients + self._momentum * self._buffer, self._buffer)
        weights.sub_(self.lr() * update)

    def sync(self) -> None:
        """The buffers are the state; steps are not counted."""
