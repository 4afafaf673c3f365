"""The weights of several models of one architecture in one piece of memory, of which each model's own are views.

So whatever changes the whole changes the models, and each can still be validated, averaged, saved and resumed by the
code for a model alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn


class Stack:
    """Parameters, gradients and buffers of models that agree in names, shapes and memory formats.

    Building it moves the models' parameters and buffers into its memory; they keep their values and their identity, so
    optimizers that know them go on. Moving a model into another stack takes it out of this one.

    Attributes:
        parameters: (num_slots, P), a row a model: all its parameters, in their order and memory formats.
        gradients: the same for their gradients.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.num_slots = len(models)
        first = dict(models[0].named_parameters())
        parameters = list(first.values())
        self.num_scalars = sum(each.numel() for each in parameters)
        self._strides = {name: each.stride() for name, each in first.items()}
        self._shapes = {name: each.shape for name, each in first.items()}
        self.columns: dict[str, slice] = {}
        start = 0
        for name, each in first.items():
            self.columns[name] = slice(start, start + each.numel())
            start += each.numel()
        self.parameters = parameters[0].new_empty(self.num_slots, self.num_scalars).detach()
        self.gradients = torch.zeros_like(self.parameters)
        self._buffers = {
            name: torch.stack([dict(model.named_buffers())[name] for model in models])
            for name, _ in models[0].named_buffers()
        }
        self._take_in(models)

    def views(self, flat: Tensor, *, row: int) -> Iterator[tuple[str, Tensor]]:
        """Name and part of each parameter in one row of a tensor that is laid out as `parameters` is."""
        for name, columns in self.columns.items():
            offset = row * self.num_scalars + columns.start
            yield name, flat.as_strided(self._shapes[name], self._strides[name], offset)

    def leaves(self, rows: slice) -> dict[str, Tensor]:
        """Parameters of consecutive models by name, (num_rows, ...), to differentiate by."""
        return {name: each.requires_grad_() for name, each in self.values(rows).items()}

    @torch.no_grad()
    def differentiate(self, total: Tensor, leaves: Mapping[str, Tensor], *, rows: slice) -> None:
        """Puts the gradient of a scalar by the `leaves` of these rows into `gradients`."""
        found = torch.autograd.grad(total, list(leaves.values()), materialize_grads=True)
        torch._foreach_copy_([self._of_rows(self.gradients, name, rows) for name in leaves], list(found))

    def values(self, rows: slice) -> dict[str, Tensor]:
        """Parameters of consecutive models by name, (num_rows, ...), without gradients."""
        return {name: self._of_rows(self.parameters, name, rows) for name in self.columns}

    def buffers(self, rows: slice) -> dict[str, Tensor]:
        """Buffers of consecutive models by name, (num_rows, ...)."""
        return {name: buffer[rows] for name, buffer in self._buffers.items()}

    def snapshot(self) -> dict[str, Tensor]:
        """What a forward pass may change."""
        return {name: buffer.clone() for name, buffer in self._buffers.items()}

    def back_to(self, before: Mapping[str, Tensor]) -> None:
        """Undoes what has changed since a snapshot."""
        for name, value in before.items():
            self._buffers[name].copy_(value)

    def _of_rows(self, flat: Tensor, name: str, rows: slice) -> Tensor:
        offset = rows.start * self.num_scalars + self.columns[name].start
        shape, strides = self._shapes[name], self._strides[name]
        return flat.as_strided((rows.stop - rows.start, *shape), (self.num_scalars, *strides), offset)

    @torch.no_grad()
    def _take_in(self, models: Sequence[nn.Module]) -> None:
        for row, model in enumerate(models):
            own = dict(model.named_parameters())
            for (name, view), (_, gradient) in zip(
                self.views(self.parameters, row=row), self.views(self.gradients, row=row), strict=True
            ):
                view.copy_(own[name])
                own[name].data = view
                own[name].grad = gradient
            for name, buffer in model.named_buffers():
                buffer.data = self._buffers[name][row]
