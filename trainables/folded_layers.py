"""Layers of several networks of one architecture in one: their channels lie side by side, (B, num_slots * C, H, W).

A convolution of such maps has as many groups as slots, and normalisation by group, by channel or by batch, pooling and
activation functions need no change at all: no tensor is rearranged between the first layer and the last. On the
CPU this is faster than `torch.vmap`, which rearranges before most layers (measured on `cnn` with batch normalisation:
1.3 to 2 times).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.small_cnn import StandardizedConv2d


class FoldedLayer(nn.Module):
    """A layer whose parameters and buffers are those of all slots, (num_slots, ...), by the layer's names for them."""

    tensors: Mapping[str, Tensor]

    def folded(self, name: str) -> Tensor | None:
        """A tensor with its slots and its first dimension in one, (num_slots * C, ...); None where it has none."""
        tensor = self.tensors.get(name)
        return None if tensor is None else tensor.flatten(0, 1)


class FoldedConv2d(FoldedLayer):
    """`nn.Conv2d` and `StandardizedConv2d`."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self._geometry = (layer.stride, layer.padding, layer.dilation)
        self._groups = layer.groups
        self._standardized = isinstance(layer, StandardizedConv2d)

    def forward(self, maps: Tensor) -> Tensor:
        weight = self.folded("weight")
        assert weight is not None
        if self._standardized:
            rows = weight.reshape(1, weight.shape[0], -1)
            weight = F.batch_norm(rows, None, None, training=True).view_as(weight)
        stride, padding, dilation = self._geometry
        groups = self._groups * self.tensors["weight"].shape[0]
        return F.conv2d(maps, weight, self.folded("bias"), stride, padding, dilation, groups)


class FoldedLinear(FoldedLayer):
    """`nn.Linear` of vectors, (B, num_slots * C)."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        del layer

    def forward(self, vectors: Tensor) -> Tensor:
        weight, bias = self.tensors["weight"], self.tensors.get("bias")
        if vectors.ndim != 2:
            raise NotImplementedError(f"a linear layer of tokens, {tuple(vectors.shape)}")
        inputs = vectors.view(len(vectors), weight.shape[0], -1).transpose(0, 1)
        outputs = torch.bmm(inputs, weight.mT) if bias is None else torch.baddbmm(bias[:, None], inputs, weight.mT)
        return outputs.transpose(0, 1).flatten(1)


class FoldedGroupNorm(FoldedLayer):
    """`nn.GroupNorm`."""

    def __init__(self, layer: nn.GroupNorm) -> None:
        super().__init__()
        self._groups = layer.num_groups
        self._eps = layer.eps

    def forward(self, maps: Tensor) -> Tensor:
        num_slots = self.tensors["weight"].shape[0]
        return F.group_norm(maps, num_slots * self._groups, self.folded("weight"), self.folded("bias"), self._eps)


class FoldedBatchNorm2d(FoldedLayer):
    """`nn.BatchNorm2d`; the running statistics of every slot are its own."""

    def __init__(self, layer: nn.BatchNorm2d) -> None:
        super().__init__()
        self._eps = layer.eps
        self._momentum = layer.momentum

    def forward(self, maps: Tensor) -> Tensor:
        if self.training:
            self.tensors["num_batches_tracked"].add_(1)
        # One dimension of contiguous tensors: these are views, and what is written into them stays.
        mean, variance = self.tensors["running_mean"].view(-1), self.tensors["running_var"].view(-1)
        weight, bias = self.folded("weight"), self.folded("bias")
        assert self._momentum is not None
        return F.batch_norm(maps, mean, variance, weight, bias, self.training, self._momentum, self._eps)


def folded_layer(layer: nn.Module) -> FoldedLayer | None:
    """A layer's counterpart for all slots; None for a layer that has none."""
    if type(layer) in (nn.Conv2d, StandardizedConv2d):
        assert isinstance(layer, nn.Conv2d)
        return FoldedConv2d(layer) if layer.padding_mode == "zeros" else None
    if type(layer) is nn.Linear:
        return FoldedLinear(layer)
    if type(layer) is nn.GroupNorm and layer.affine:
        return FoldedGroupNorm(layer)
    if type(layer) is nn.BatchNorm2d and layer.affine and layer.track_running_stats and layer.momentum is not None:
        return FoldedBatchNorm2d(layer)
    return None
