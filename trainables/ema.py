"""The average of a model's recent weights, which often classifies better than the latest ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class Ema:
    """An exponential moving average of parameters and running statistics, updated after every step.

    The first update copies the model; update t + 1 keeps min(decay, (1 + t) / (10 + t)) of the average, so that a
    short trial is not averaged with its own beginning. Integers, and buffers that are constants rather than
    statistics, are copied.

    Args:
        model: what is averaged; its device, types and memory formats are kept.
        decay: in [0, 1); the average then spans about 1 / (1 - decay) steps.

    Source: Polyak averaging as in arXiv:1512.00567 (section 8); warm-up, TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self._decay = decay
        self._averaged = AveragedModel(model, use_buffers=True)
        self._averaged.requires_grad_(False)
        self._averaged.eval()
        names = [name for name, _ in model.named_buffers()]
        self._constants = [name for name in names if not name.rpartition(".")[2].startswith("running_")]

    @property
    def module(self) -> nn.Module:
        """The averaged model, in evaluation mode."""
        module: nn.Module = self._averaged.module
        return module

    @property
    def num_updates(self) -> int:
        """Updates so far."""
        return int(self._averaged.n_averaged)  # lies on the CPU: reading it never waits for a GPU

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Moves the average towards the model as it now is."""
        done = self.num_updates
        current = dict(model.named_buffers()) if self._constants else {}
        for name in self._constants:
            self._have_shape_of(current[name], name)
        weight = 1.0 - min(self._decay, (1 + done) / (10 + done))
        # Torch's own `update_parameters` copies the number of updates to the GPU each time, and waits for it.
        self._averaged.n_averaged += 1
        for mine, latest in _by_type(_tensors(self.module), _tensors(model)):
            if done and mine[0].is_floating_point():
                torch._foreach_lerp_(mine, latest, weight)
            else:
                torch._foreach_copy_(mine, latest)
        if self._constants:  # an attention mask of -inf would have been averaged to NaN
            averaged = dict(self.module.named_buffers())
            for name in self._constants:
                averaged[name].copy_(current[name])

    def _have_shape_of(self, buffer: Tensor, name: str) -> None:
        """Some networks (timm's ConViT) work out a constant when they see the first image, or one of another size."""
        owner, _, own_name = name.rpartition(".")
        module = self.module.get_submodule(owner)
        if module.get_buffer(own_name).shape != buffer.shape:
            setattr(module, own_name, buffer.clone())

    def state_dict(self) -> dict[str, Any]:
        """Everything that continuing exactly needs: tensors only."""
        state: dict[str, Any] = self._averaged.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state_dict` gave."""
        self._averaged.load_state_dict(state)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _by_type(averaged: Sequence[Tensor], latest: Sequence[Tensor]) -> Iterable[tuple[list[Tensor], list[Tensor]]]:
    """The same in groups of one type, which take a few kernels each."""
    groups: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for mine, theirs in zip(averaged, latest, strict=True):
        group = groups.setdefault(mine.dtype, ([], []))
        group[0].append(mine)
        group[1].append(theirs)
    return groups.values()
