"""What does a network cost, before it is trained? Parameters, operations, size and time of a forward pass."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from trainables.hyperparameters import Hyperparameters
from trainables.models import build_model, input_spec, shapes_fit, split_outputs

_WARM_UP, _LEAST_RUNS, _LEAST_S = 3, 20, 0.2


def static_objectives(
    config: Hyperparameters,
    wanted: Collection[str],
    *,
    num_classes: int,
    in_chans: int,
    image_size: int,
    num_threads: int = 1,
    device: str = "cpu",
) -> dict[str, float]:
    """What a trial's network costs in use; networks that were measured before are not built again.

    The first three are counted on shapes alone and need no memory. For the latency the network is built with random
    weights and run in fp32, in evaluation mode, on one image at a time.

    Args:
        wanted: names of `trainables.metric_names.STATIC_OBJECTIVES`.
        image_size: side of the data's images; the network may take another one.
        num_threads: of the CPU, for the latency.

    Returns:
        By name: num_params, flops (of one image; a multiply-add is two), model_mib (fp32), latency_ms (median).

    Raises:
        ModelError: if the network cannot be built.
    """
    anything = ([0.5] * in_chans, [0.25] * in_chans)
    size = input_spec(config, data_mean_std=anything, in_chans=in_chans, image_size=image_size).size
    # What decides about costs; two trials that agree in it share what was measured.
    parts = {name for name in Hyperparameters.model_fields if name.startswith("cnn_")}
    network = Hyperparameters(**config.model_dump(include={"arch", "channels_last", *parts}))
    shape = (1, in_chans, size, size)
    found = _counted(network, num_classes, shape) if set(wanted) - {"latency_ms"} else {}
    if "latency_ms" in wanted:
        found = {**found, "latency_ms": _latency_ms(network, num_classes, shape, num_threads, device)}
    return {name: found[name] for name in wanted}


@lru_cache(maxsize=4096)
def _counted(config: Hyperparameters, num_classes: int, shape: tuple[int, int, int, int]) -> dict[str, float]:
    counter = FlopCounterMode(display=False)
    with torch.device("meta"), torch.no_grad():
        model = _network(config, num_classes, shape)
        images = torch.empty(shape)
        with counter, shapes_fit(config.arch, image_size=shape[-1], in_chans=shape[1]):
            model(images)
    count = sum(parameter.numel() for parameter in model.parameters())
    state = sum(tensor.numel() for tensor in model.state_dict().values() if tensor.is_floating_point())
    return {"num_params": float(count), "flops": float(counter.get_total_flops()), "model_mib": state * 4 / 2**20}


@lru_cache(maxsize=4096)
def _latency_ms(
    config: Hyperparameters, num_classes: int, shape: tuple[int, int, int, int], num_threads: int, device: str
) -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
        model = _network(config, num_classes, shape).to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
        images = torch.rand(shape, device=device).to(memory_format=memory_format)
        with torch.inference_mode(), shapes_fit(config.arch, image_size=shape[-1], in_chans=shape[1]):
            return _median_ms(lambda: split_outputs(model(images))[0], device=device)
    finally:
        torch.set_num_threads(threads)


def _median_ms(forward: Callable[[], Tensor], *, device: str) -> float:
    times: list[float] = []
    while len(times) < _WARM_UP + _LEAST_RUNS or sum(times) < _LEAST_S:
        started = time.perf_counter()
        forward()
        if device != "cpu":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[_WARM_UP:]) * 1e3


def _network(config: Hyperparameters, num_classes: int, shape: tuple[int, int, int, int]) -> nn.Module:
    _, in_chans, size, _ = shape
    return build_model(config, num_classes=num_classes, in_chans=in_chans, image_size=size).eval()
