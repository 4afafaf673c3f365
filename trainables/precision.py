"""In which number format are activations computed?"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from trainables.errors import ConfigError


class Precision:
    """Autocast and, for fp16, loss scaling; weights and optimizer states stay float32.

    Args:
        name: auto, fp32, bf16 or fp16; auto is bf16 on GPUs that have it and fp32 elsewhere.

    Raises:
        ConfigError: if the device cannot compute in that format.

    Source: mixed precision training, arXiv:1710.03740.
    """

    def __init__(self, name: str, *, device: torch.device) -> None:
        self._device = device
        self.name = _resolve(name, device=device)
        self._dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[self.name]
        self.scaler = GradScaler(device.type, enabled=self.name == "fp16")

    def autocast(self) -> AbstractContextManager[object]:
        if self._dtype is None:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self._dtype)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a loss to those already there."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, optimizer: Optimizer, *, parameters: Sequence[Tensor], grad_clip_norm: float | None) -> None:
        """One optimizer step, with the gradients unscaled before they are clipped."""
        if grad_clip_norm is not None:
            self.scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(parameters, grad_clip_norm)
        self.scaler.step(optimizer)
        self.scaler.update()


def _resolve(name: str, *, device: torch.device) -> str:
    if name == "auto":
        return "bf16" if device.type == "cuda" and _computes_in_bf16() else "fp32"
    if name == "fp16" and device.type != "cuda":
        raise ConfigError(
            f"space.precision: fp16 needs a CUDA device, this trial runs on {device.type}; use auto, bf16 or fp32"
        )
    if name == "bf16" and device.type == "cuda" and not _computes_in_bf16():
        raise ConfigError("space.precision: this GPU does not compute in bf16; use auto, fp16 or fp32")
    return name


def _computes_in_bf16() -> bool:
    # By default torch counts emulation too, which older GPUs do more slowly than float32.
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))
