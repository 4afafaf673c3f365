"""Several networks of one architecture passed through in one: by grouped convolutions, or by `torch.vmap`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainables.folded_layers import FoldedLayer, folded_layer
from trainables.slot_draws import FoldedDropout, MappedDropout, SlotDraws, dropout_rates

Engine = Literal["folded", "vmap"]
ENGINES: tuple[Engine, ...] = ("folded", "vmap")  # in the order of preference
# Path of a dropout layer -> its rate in each slot.
Rates = Mapping[str, Sequence[float]]


class FusedNetwork(Protocol):
    """Networks of all slots as one function."""

    def rates(self, models: Sequence[nn.Module]) -> Rates:
        """What may differ between slots besides tensors: dropout rates."""

    def take(self, rates: Rates, generators: Sequence[torch.Generator]) -> None:
        """Sets the dropout rates of the slots that pass next, and the generators that draw their masks."""

    def __call__(
        self, images: Tensor, *, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], training: bool
    ) -> Tensor:
        """Class scores.

        Args:
            images: (num_slots, B, C, H, W).
            parameters: (num_slots, ...) by name.
            buffers: likewise; running statistics are updated in place.
            training: whether dropout and normalisation behave as in training.

        Returns:
            (num_slots, B, num_classes).
        """


def fused_network(engine: Engine, model: nn.Module) -> FusedNetwork:
    """The networks of all models that are built as this one is.

    Raises:
        NotImplementedError: naming a layer that cannot be folded.
    """
    return FoldedNetwork(model) if engine == "folded" else MappedNetwork(model)


class _DropoutSlots:
    """The dropout layers of a fused network, by path."""

    def __init__(self) -> None:
        self._draws = SlotDraws()
        self._dropouts: dict[str, FoldedDropout | MappedDropout] = {}

    def rates(self, models: Sequence[nn.Module]) -> Rates:
        return {path: dropout_rates(models, path) for path in self._dropouts}

    def take(self, rates: Rates, generators: Sequence[torch.Generator]) -> None:
        self._draws.generators = generators
        for path, layer in self._dropouts.items():
            layer.rates = rates[path]


class FoldedNetwork(_DropoutSlots):
    """The model's own forward pass over maps in which the channels of all slots lie side by side.

    Right for networks whose forward pass leaves the order of the channels to their layers; `trainables/fusable.py`
    finds that out by trying.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._layers: dict[str, FoldedLayer] = {}
        self._network = _skeleton(model)
        for path, layer in list(self._network.named_modules()):
            if isinstance(layer, nn.Dropout):
                self._dropouts[path] = FoldedDropout(self._draws)
                self._network.set_submodule(path, self._dropouts[path])
                continue
            if not [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]:
                continue
            folded = folded_layer(layer)
            if folded is None:
                raise NotImplementedError(f"{type(layer).__name__} at {path or 'the top'}")
            self._layers[path] = folded
            self._network.set_submodule(path, folded)

    def __call__(
        self, images: Tensor, *, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], training: bool
    ) -> Tensor:
        num_slots = images.shape[0]
        for path, layer in self._layers.items():
            start = len(path) + 1
            own = {
                name[start:]: each for name, each in {**parameters, **buffers}.items() if name.startswith(path + ".")
            }
            layer.tensors = own
        self._network.train(training)
        channels_last = images[0].is_contiguous(memory_format=torch.channels_last)
        maps = images.transpose(0, 1).flatten(1, 2)
        scores: Tensor = self._network(
            maps.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        )
        return scores.view(len(scores), num_slots, -1).transpose(0, 1)


class MappedNetwork(_DropoutSlots):
    """`torch.vmap` over the slots; any other source of randomness than dropout layers is an error there."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._network = _skeleton(model)
        for path, layer in list(self._network.named_modules()):
            if isinstance(layer, nn.Dropout):
                self._dropouts[path] = MappedDropout(self._draws, p=layer.p)
                self._network.set_submodule(path, self._dropouts[path])
            elif isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size in (1, (1, 1)):
                # The same numbers; torch's own sets strides in a way that vmap would do slot by slot.
                self._network.set_submodule(path, _MeanOfMap())

    def __call__(
        self, images: Tensor, *, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], training: bool
    ) -> Tensor:
        self._network.train(training)

        def scores_of(own: tuple[dict[str, Tensor], dict[str, Tensor]], batch: Tensor) -> Tensor:
            scores: Tensor = functional_call(self._network, own, (batch,))
            return scores

        mapped = torch.vmap(scores_of, randomness="error")
        with sdpa_kernel(SDPBackend.MATH):  # vmap would go through the CPU's attention kernel slot by slot
            scores: Tensor = mapped((dict(parameters), dict(buffers)), images)
        return scores


class _MeanOfMap(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean((-2, -1), keepdim=True)


def _skeleton(model: nn.Module) -> nn.Module:
    """A copy of the network without its weights."""
    memo: dict[int, object] = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        without = tensor.detach().to("meta")
        memo[id(tensor)] = nn.Parameter(without) if isinstance(tensor, nn.Parameter) else without
    return copy.deepcopy(model, memo)
