"""Augmentation pipelines of albumentations, written as YAML lists, with their own checks and their own seeding."""

from __future__ import annotations

import inspect
import os
import random
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.config import AugmentationStep
from trainables.errors import ConfigError
from trainables.layouts import opencv
from trainables.nearest import nearest
from trainables.randomness import epoch_stream

_COMPOSITIONS = ("OneOf", "SomeOf", "RandomOrder", "Sequential")


class PipelineAugment:
    """An albumentations pipeline, applied image by image.

    albumentations draws from a NumPy and a Python generator that all its transforms share. Both are set before each
    image from (seed, epoch, position): the NumPy one by moving its counter, the Python one by a draw from it.
    """

    on_cpu = True

    def __init__(self, steps: Sequence[AugmentationStep], *, seed: int, where: str) -> None:
        self._where = where
        self._seed = seed
        self._pipeline = build_pipeline(steps, where=where)
        self._bits = epoch_stream(seed, 0)
        self._generator = np.random.Generator(self._bits)
        self._python = random.Random(0)
        self._pipeline.set_random_state(self._generator, self._python)
        self._stream: Any = self._bits.state

    def start_epoch(self, epoch: int) -> None:
        # The state of a fresh generator of this key; the counter's last word then selects the image.
        self._stream = epoch_stream(self._seed, epoch).state

    def __call__(self, images: Tensor, positions: Tensor) -> Tensor:
        batch = images.cpu().permute(0, 2, 3, 1).contiguous().numpy()
        out = np.empty_like(batch)
        for row, position in enumerate(positions.tolist()):
            self._reseed(position)
            out[row] = self._augment(batch[row])
        return torch.from_numpy(out).permute(0, 3, 1, 2).to(images.device)

    def _reseed(self, position: int) -> None:
        self._stream["state"]["counter"][3] = position
        self._bits.state = self._stream
        self._python.seed(int(self._generator.integers(2**63)))

    def _augment(self, image: np.ndarray) -> np.ndarray:
        try:
            result: np.ndarray = self._pipeline(image=image)["image"]
        except (ValueError, TypeError, KeyError, RuntimeError, NotImplementedError) as error:
            raise ConfigError(
                f"{self._where}: the pipeline fails on an image of shape {image.shape} (H, W, C): "
                f"{_first_line(error)}; change or remove that transform"
            ) from error
        if isinstance(result, np.ndarray) and result.shape == image.shape[:2]:
            result = result[:, :, None]
        found = (getattr(result, "shape", None), getattr(result, "dtype", type(result)))
        if found != (image.shape, image.dtype):
            raise ConfigError(
                f"{self._where}: a pipeline must keep shape and type of an image, {image.shape} uint8, got "
                f"{found[0]} {found[1]}; leave out what resizes, normalises or converts"
            )
        return result


def build_pipeline(steps: Sequence[AugmentationStep], *, where: str) -> Any:
    """An `albumentations.Compose` of the steps.

    Args:
        steps: see `AugmentationStep`.
        where: dotted key of the pipeline, for messages.

    Raises:
        ConfigError: naming the step, what is wrong with it, and the nearest or valid names.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would look for a newer release on the network
    import albumentations

    opencv()
    transforms = [_build_step(step, where=f"{where}[{number}]") for number, step in enumerate(steps)]
    return albumentations.Compose(transforms)


def _build_step(step: AugmentationStep, *, where: str) -> Any:
    name, arguments = _name_and_arguments(step, where=where)
    transform = _find_transform(name, where=where)
    valid = [each for each in inspect.signature(transform).parameters if each not in ("self", "strict")]
    unknown = [argument for argument in arguments if argument not in valid]
    if unknown:
        raise ConfigError(
            f"{where}: {name} has no argument {', '.join(map(repr, unknown))}; valid are {', '.join(valid)}"
        )
    if "transforms" in arguments:
        inner = arguments["transforms"]
        if not isinstance(inner, Sequence) or isinstance(inner, str) or not inner:
            raise ConfigError(f"{where}.{name}.transforms: must be a list of transforms, got {inner!r}; add some")
        nested = [_build_step(each, where=f"{where}.{name}.transforms[{i}]") for i, each in enumerate(inner)]
        arguments = {**arguments, "transforms": nested}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # 2.0.8 warns, and goes on with defaults, where it should fail
            return transform(**arguments)
    except (ValueError, TypeError, UserWarning) as error:
        raise ConfigError(
            f"{where}: {name} refuses its arguments: {_first_line(error)}; correct them (valid are {', '.join(valid)})"
        ) from error


def _name_and_arguments(step: object, *, where: str) -> tuple[str, dict[str, Any]]:
    if isinstance(step, str):
        return step, {}
    if isinstance(step, Mapping) and len(step) == 1:
        name, arguments = next(iter(step.items()))
        if isinstance(name, str) and isinstance(arguments, Mapping | None):
            return name, dict(arguments or {})
    raise ConfigError(f"{where}: must be NAME or one NAME: {{arguments}}, got {step!r}; write it so")


def _find_transform(name: str, *, where: str) -> type:
    import albumentations

    known = {
        key: value
        for key, value in vars(albumentations).items()
        if inspect.isclass(value)
        and (key in _COMPOSITIONS or issubclass(value, albumentations.BasicTransform))
        and not inspect.isabstract(value)
    }
    if name not in known:
        near = nearest(name, known)
        hint = f"did you mean {' or '.join(near)}?" if near else "see the list of transforms of albumentations 2.0"
        raise ConfigError(f"{where}: albumentations has no transform {name!r}; {hint}")
    return known[name]


def _first_line(error: BaseException) -> str:
    """pydantic spreads an error over several lines: the argument and what is wrong with it are enough."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) >= 3 and "validation error" in lines[0]:
        return f"{lines[1]}: {lines[2].split(' [type=')[0]}"
    return lines[0] if lines else type(error).__name__
