"""From a graph of Keras' layers to one of torch's: one function for each kind of layer."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial, reduce
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from trainables.errors import ModelError
from trainables.keras_layers import (
    ChannelNorm,
    ChannelScale,
    Rescale,
    pad_same,
    pool_average,
    pool_max,
)

# Keras' 0.9 to 0.9997, as torch counts 0.1 to 0.0003: in a short trial the statistics would still be those of
# initialisation when the network is evaluated. This is torch's default, which other architectures have here too.
_BATCH_NORM_MOMENTUM = 0.1


class Conversion:
    """Copies a graph of Keras' layers into one of torch's; its tensors have the channels second instead of last.

    Attributes:
        sides: the layers with parameters, and the side of their output in pixels, 0 where it is pooled.
        normalisation: factor and offset by channel that the layers which normalise the input amount to.
    """

    def __init__(self, *, drop_path: float, channels: int) -> None:
        self.graph = fx.Graph()
        self.root = nn.Module()
        self.sides: dict[str, int] = {}
        self.normalisation = (torch.ones(channels), torch.zeros(channels))
        self.drop_path = drop_path
        self.highest_rate = 1.0
        self._num_unnamed: Counter[str] = Counter()

    def run(self, application: Any, *, rescale: bool) -> fx.GraphModule:
        rates = [layer.rate for layer in application.operations if type(layer).__name__ == "Dropout"]
        self.highest_rate = max(rates, default=1.0)
        images = self.graph.placeholder("images")
        if rescale:
            images = self.call("rescale", Rescale(application.input_shape[-1]), images)
        # Keras' own walk over its graph, as in Functional.call, with our layers in place of its own.
        features = application._run_through_graph([images], operation_fn=lambda layer: partial(self.convert, layer))
        self.graph.output(features)
        return fx.GraphModule(self.root, self.graph)

    def convert(self, layer: Any, *args: Any, **_: Any) -> fx.Node:
        """The output of one of Keras' layers, from nodes, numbers, or a list of nodes."""
        inputs = list(chain.from_iterable(arg if isinstance(arg, (list, tuple)) else [arg] for arg in args))
        converter = _CONVERTERS.get(type(layer).__name__)
        if converter is None:
            raise ModelError(
                f"keras layer {layer.name}: no conversion to torch for its kind {type(layer).__name__}; "
                "choose another architecture, or the release of keras in constraints.txt"
            )
        return converter(self, layer, *inputs)

    def call(self, name: str, module: nn.Module, *inputs: fx.Node) -> fx.Node:
        assert not hasattr(self.root, name), f"two layers named {name}"
        self.root.add_module(name, module)
        return self.graph.call_module(name, inputs)

    def call_layer(
        self, layer: Any, module: nn.Module, values: Mapping[str, Any], x: fx.Node, *, part: str = ""
    ) -> fx.Node:
        """A module with parameters, filled with values that Keras drew or loaded."""
        name = self._name(layer) + part
        shape = layer.output.shape
        self.sides[name] = int(shape[1]) if len(shape) == 4 else 0
        state = {key: value.detach().clone(memory_format=torch.contiguous_format) for key, value in values.items()}
        if isinstance(module, nn.BatchNorm2d):
            state["num_batches_tracked"] = torch.tensor(0)
        module.load_state_dict(state, assign=True)
        return self.call(name, module, x)

    def convolve(
        self, layer: Any, x: fx.Node, weight: Tensor, *, bias: Any = None, depthwise: bool = False, part: str = ""
    ) -> fx.Node:
        """A convolution by a weight of shape (out, in / groups, height, width), with the layer's stride and padding."""
        pointwise = part == "_pointwise"
        stride, kernel = (1, 1) if pointwise else tuple(layer.strides), tuple(weight.shape[2:])
        padding = (0, 0)
        if layer.padding == "same" and not pointwise:
            if stride == (1, 1) and all(side % 2 for side in kernel):
                padding = (kernel[0] // 2, kernel[1] // 2)
            else:
                x = self.graph.call_function(pad_same, (x, kernel, stride))
        groups = weight.shape[0] if depthwise else getattr(layer, "groups", 1)
        module = nn.Conv2d(
            weight.shape[1] * groups,
            weight.shape[0],
            kernel,  # type: ignore[arg-type]
            stride,
            padding,
            groups=groups,
            bias=bias is not None,
            device="meta",
        )
        values = {"weight": weight} | ({} if bias is None else {"bias": bias.value})
        return self.call_layer(layer, module, values, x, part=part)

    def activate(self, activation: Any, x: fx.Node) -> fx.Node:
        name = activation if isinstance(activation, str) else activation.__name__
        if name == "linear":
            return x
        return self.graph.call_function(_ACTIVATIONS[name], (x,))

    def _name(self, layer: Any) -> str:
        """Keras' name, but one counted within this network where Keras counted over all that the process built."""
        base = re.sub(r"_\d+$", "", layer.name)
        if base.replace("_", "") != type(layer).__name__.lower():
            return str(layer.name).replace(".", "_")
        self._num_unnamed[base] += 1
        return f"{base}_{self._num_unnamed[base]}"


_ACTIVATIONS: Mapping[str, Callable[..., Tensor]] = {
    "relu": F.relu,
    "silu": F.silu,
    "gelu": F.gelu,
    "sigmoid": torch.sigmoid,
    "hard_silu": F.hardswish,
}


def _convolution(to: Conversion, layer: Any, x: fx.Node) -> fx.Node:
    weight = layer.kernel.value.permute(3, 2, 0, 1)
    return to.activate(layer.activation, to.convolve(layer, x, weight, bias=layer.bias))


def _depthwise(to: Conversion, layer: Any, x: fx.Node) -> fx.Node:
    return to.activate(
        layer.activation, to.convolve(layer, x, _by_channel(layer.kernel), bias=layer.bias, depthwise=True)
    )


def _separable(to: Conversion, layer: Any, x: fx.Node) -> fx.Node:
    x = to.convolve(layer, x, _by_channel(layer.depthwise_kernel), depthwise=True, part="_depthwise")
    weight = layer.pointwise_kernel.value.permute(3, 2, 0, 1)
    return to.activate(layer.activation, to.convolve(layer, x, weight, bias=layer.bias, part="_pointwise"))


def _by_channel(kernel: Any) -> Tensor:
    """Of shape (height, width, channels, 1) to (channels, 1, height, width)."""
    weight: Tensor = kernel.value.permute(2, 3, 0, 1)
    return weight


def _dense(to: Conversion, layer: Any, x: fx.Node) -> fx.Node:
    """Keras applies it to the last dimension, so to each pixel."""
    weight = layer.kernel.value.T[:, :, None, None]
    module = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=layer.bias is not None, device="meta")
    values = {"weight": weight} | ({} if layer.bias is None else {"bias": layer.bias.value})
    return to.activate(layer.activation, to.call_layer(layer, module, values, x))


def _batch_norm(to: Conversion, layer: Any, x: fx.Node) -> fx.Node:
    width = layer.moving_mean.shape[0]
    module = nn.BatchNorm2d(width, eps=layer.epsilon, momentum=_BATCH_NORM_MOMENTUM, device="meta")
    values = {"bias": layer.beta.value}
    if layer.scale:
        values["weight"] = layer.gamma.value
    else:
        module.register_parameter("weight", None)
    values |= {"running_mean": layer.moving_mean.value, "running_var": layer.moving_variance.value}
    return to.call_layer(layer, module, values, x)


def _layer_norm(to: Conversion, layer: Any, x: fx.Node) -> fx.Node:
    module = ChannelNorm(layer.gamma.shape[0], eps=layer.epsilon, device="meta")
    return to.call_layer(layer, module, {"weight": layer.gamma.value, "bias": layer.beta.value}, x)


def _layer_scale(to: Conversion, layer: Any, x: fx.Node) -> fx.Node:
    return to.call_layer(layer, ChannelScale(layer.gamma.shape[0]), {"gamma": layer.gamma.value}, x)


def _pool(to: Conversion, layer: Any, x: fx.Node) -> fx.Node:
    kernel, stride = tuple(layer.pool_size), tuple(layer.strides)
    pool = pool_max if type(layer).__name__ == "MaxPooling2D" else pool_average
    return to.graph.call_function(pool, (x, kernel, stride, layer.padding == "same"))


def _global_pool(to: Conversion, layer: Any, x: fx.Node) -> fx.Node:
    return to.graph.call_method("mean", (x, (2, 3)), {"keepdim": layer.keepdims})


def _reshape(to: Conversion, layer: Any, x: fx.Node) -> fx.Node:
    *sides, channels = layer.target_shape
    assert sides == [1, 1], "only pooled features are given the form of an image"
    return to.graph.call_method("reshape", (x, -1, channels, 1, 1))


def _pad(to: Conversion, layer: Any, x: fx.Node) -> fx.Node:
    (top, bottom), (left, right) = layer.padding
    return to.graph.call_function(F.pad, (x, (left, right, top, bottom)))


def _crop(to: Conversion, layer: Any, x: fx.Node) -> fx.Node:
    (top, bottom), (left, right) = layer.cropping
    return to.graph.call_function(F.pad, (x, (-left, -right, -top, -bottom)))


def _activation(to: Conversion, layer: Any, x: fx.Node) -> fx.Node:
    return to.activate(layer.activation, x)


def _relu(to: Conversion, layer: Any, x: fx.Node) -> fx.Node:
    return to.graph.call_function(F.relu if layer.max_value is None else F.relu6, (x,))


def _drop_path(to: Conversion, layer: Any, x: fx.Node) -> fx.Node:
    assert tuple(layer.noise_shape)[1:] == (1, 1, 1), "the dropout of an application's top is left out with it"
    rate = to.drop_path * layer.rate / to.highest_rate
    return x if rate == 0 else to.call(layer.name, StochasticDepth(rate, mode="row"), x)


def _add(to: Conversion, _: Any, *terms: Any) -> fx.Node:
    total: fx.Node = reduce(lambda *pair: to.graph.call_function(operator.add, pair), terms)
    return total


def _multiply(to: Conversion, _: Any, *factors: Any) -> fx.Node:
    product: fx.Node = reduce(lambda *pair: to.graph.call_function(operator.mul, pair), factors)
    return product


def _add_scaled(to: Conversion, layer: Any, x: fx.Node, residual: fx.Node) -> fx.Node:
    return to.graph.call_function(torch.add, (x, residual), {"alpha": layer.scale})


def _concatenate(to: Conversion, _: Any, *parts: fx.Node) -> fx.Node:
    return to.graph.call_function(torch.cat, (list(parts), 1))


def _sequence(to: Conversion, model: Any, x: fx.Node) -> fx.Node:
    return reduce(lambda node, layer: to.convert(layer, node), model.layers, x)


def _rescaling(to: Conversion, layer: Any, x: fx.Node) -> fx.Node:
    factor, offset = torch.as_tensor(layer.scale), torch.as_tensor(layer.offset)
    to.normalisation = (to.normalisation[0] * factor, to.normalisation[1] * factor + offset)
    return x


def _normalization(to: Conversion, layer: Any, x: fx.Node) -> fx.Node:
    mean, variance = layer.mean.flatten(), layer.variance.flatten()
    to.normalisation = (to.normalisation[0] / variance.sqrt(), (to.normalisation[1] - mean) / variance.sqrt())
    return x


_CONVERTERS: Mapping[str, Callable[..., fx.Node]] = {
    "Activation": _activation,
    "Add": _add,  # the layer, and x + 3
    "AveragePooling2D": _pool,
    "BatchNormalization": _batch_norm,
    "Concatenate": _concatenate,
    "Conv2D": _convolution,
    "Cropping2D": _crop,
    "CustomScaleLayer": _add_scaled,
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise,
    "Dropout": _drop_path,
    "GlobalAveragePooling2D": _global_pool,
    "LayerNormalization": _layer_norm,
    "LayerScale": _layer_scale,
    "MaxPooling2D": _pool,
    "Multiply": _multiply,
    "Normalization": _normalization,
    "ReLU": _relu,
    "Rescaling": _rescaling,
    "Reshape": _reshape,
    "SeparableConv2D": _separable,
    "Sequential": _sequence,
    "ZeroPadding2D": _pad,
}
