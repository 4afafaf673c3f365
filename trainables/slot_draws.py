"""The random numbers inside networks that train together: every slot draws its own, as it would alone.

torch draws dropout masks from one global generator, so trials in one process would disturb each other's. Here each slot
has a generator that is seeded as the global one is before an epoch of a trial alone, and draws in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class SlotDraws:
    """The generators of the slots that pass through a network at the moment."""

    def __init__(self) -> None:
        self.generators: Sequence[torch.Generator] = ()

    def masks(self, shape: Sequence[int], *, rates: Sequence[float], like: Tensor) -> Tensor:
        """Dropout masks, 0 or 1 / (1 - rate), each slot's drawn by its own generator.

        On the CPU these are the masks of `torch.nn.functional.dropout`, bit for bit; on a GPU its fused kernel draws in
        another order, so that there they are others of the same distribution. A rate of 0 draws nothing, as there.

        Args:
            shape: of one slot's mask.
            rates: probability of a zero for each slot.
            like: gives type and device, and where it has the same number of dimensions its memory format.

        Returns:
            (num_slots, *shape).
        """
        memory_format = torch.contiguous_format
        if len(shape) == like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last):
            memory_format = torch.channels_last
        masks = []
        for rate, generator in zip(rates, self.generators, strict=True):
            mask = torch.empty(tuple(shape), dtype=like.dtype, device=like.device, memory_format=memory_format)
            masks.append(mask.fill_(1) if rate == 0 else mask.bernoulli_(1 - rate, generator=generator).div_(1 - rate))
        return torch.stack(masks)


def dropout_rates(models: Sequence[nn.Module], path: str) -> list[float]:
    """The rate of the dropout layer that each model has at a path; 0 where it has another there."""
    layers = [model.get_submodule(path) for model in models]
    return [layer.p if isinstance(layer, nn.Dropout) else 0.0 for layer in layers]


class FoldedDropout(nn.Module):
    """Dropout of the channels of all slots side by side, (B, num_slots * C, ...)."""

    def __init__(self, draws: SlotDraws) -> None:
        super().__init__()
        self.rates: Sequence[float] = ()
        self._draws = draws

    def forward(self, features: Tensor) -> Tensor:
        if not self.training or not any(self.rates):
            return features
        num_slots = len(self.rates)
        shape = (features.shape[0], features.shape[1] // num_slots, *features.shape[2:])
        masks = self._draws.masks(shape, rates=self.rates, like=features)
        return features * masks.transpose(0, 1).flatten(1, 2)


class MappedDropout(nn.Module):
    """Dropout inside `torch.vmap` over the slots.

    Args:
        p: rate of the layer in whose place it stands; attention reads it there, for the dropout of its own.
    """

    def __init__(self, draws: SlotDraws, *, p: float) -> None:
        super().__init__()
        self.p = p
        self.rates: Sequence[float] = ()
        self._draws = draws

    def forward(self, features: Tensor) -> Tensor:
        if not self.training or not any(self.rates):
            return features

        def draw(shape: Sequence[int], like: Tensor) -> Tensor:
            return self._draws.masks(shape, rates=self.rates, like=like)

        mask: Tensor = _MaskOfSlots.apply(features.detach(), draw)
        return features * mask


class _MaskOfSlots(torch.autograd.Function):
    """Leaves vmap for a moment: what it maps over sees one slot, the draws need to know which."""

    @staticmethod
    def forward(features: Tensor, draw: Callable[[Sequence[int], Tensor], Tensor]) -> Tensor:
        raise AssertionError(f"drawn for slots only, found {features.shape} outside vmap by {draw}")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        del inputs
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], features: Tensor, draw: Callable[[Sequence[int], Tensor], Tensor]
    ) -> tuple[Tensor, int]:
        del info
        slots = features.movedim(in_dims[0] or 0, 0)
        return draw(slots.shape[1:], slots[0]), 0
