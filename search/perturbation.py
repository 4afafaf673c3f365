"""How do the parameters of a trial change in mid-training? Only those that may, and within their domains."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from search.draws import UniformDraw
from search.pipeline_params import PREFIX
from search.scalars import Scalar
from search.space import Space

# What training can change to from one epoch to the next without another network, optimizer or batch: weights and
# optimizer state of one value fit any other. Arguments of albumentations pipelines belong here too.
CHANGEABLE = frozenset(
    {
        "dropout", "drop_path", "lr", "momentum", "weight_decay", "lr_drop", "grad_clip_norm", "focal_gamma",
        "label_smoothing", "crop_padding", "crop_scale", "hflip", "vflip", "rotation", "color_jitter", "erasing",
        "randaugment_num_ops", "randaugment_magnitude", "augmix_severity", "augmix_width", "mixup_alpha",
        "cutmix_alpha", "mix_prob",
    }
)  # fmt: skip

# Factors of a move, as in the paper.
_FACTORS = (0.8, 1.2)
# Draws among which one must be allowed, else the parameters stay as they are.
_ATTEMPTS = 20


def is_changeable(name: str) -> bool:
    """Whether a parameter may change while a trial trains."""
    return name in CHANGEABLE or name.startswith(PREFIX)


def perturb(params: Mapping[str, Any], space: Space, *, rng: random.Random, resample: float) -> dict[str, Any]:
    """Searched parameters near those given: each that may change is moved by a fifth, or now and then drawn anew.

    They lie in the space and are not forbidden; a parameter that exists only beside the new values is drawn.

    Args:
        resample: chance that a parameter is drawn anew, in [0, 1].

    Source: explore step of population based training, arXiv:1711.09846.
    """
    for _ in range(_ATTEMPTS):
        chosen = space.suggest(_Moves(params, rng=rng, resample=resample))
        moved = {name: chosen[name] for name in space.searched if name in chosen}
        if space.contains(moved) is None:
            return moved
    return dict(params)


class _Moves:
    """A `Suggester` that stays near given values."""

    def __init__(self, params: Mapping[str, Any], *, rng: random.Random, resample: float) -> None:
        self._params = params
        self._rng = rng
        self._resample = resample
        self._draw = UniformDraw(rng)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number in [low, high]."""
        if self._anew(name):
            return self._draw.suggest_float(name, low, high, step=step, log=log)
        value = float(self._params[name])
        if self._stays(name):
            return value
        moved = min(high, max(low, value * self._rng.choice(_FACTORS)))
        if step is None:
            return moved
        return min(high, max(low, low + step * self._on_grid((value - low) / step, (moved - low) / step)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number in [low, high]."""
        if self._anew(name):
            return self._draw.suggest_int(name, low, high, step=step, log=log)
        value = int(self._params[name])
        if self._stays(name):
            return value
        moved = low + step * self._on_grid((value - low) / step, (value * self._rng.choice(_FACTORS) - low) / step)
        return min(low + (high - low) // step * step, max(low, moved))

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """One of the choices: of numbers, a neighbour."""
        if self._anew(name):
            return self._draw.suggest_categorical(name, choices)
        value: Scalar = self._params[name]
        if self._stays(name) or not all(_is_number(choice) for choice in choices):
            return value
        ordered = sorted(choices, key=_number)
        index = ordered.index(value) + self._rng.choice((-1, 1))
        return ordered[min(len(ordered) - 1, max(0, index))]

    def _anew(self, name: str) -> bool:
        """Whether a parameter is drawn: it has no value yet, or may change and is resampled."""
        if name not in self._params:
            return True
        return is_changeable(name) and not self._stays(name) and self._rng.random() < self._resample

    def _stays(self, name: str) -> bool:
        # Which groups of an optimizer decay at all is not seen any more once their decay is 0.
        return not is_changeable(name) or (name == "weight_decay" and self._params[name] == 0)

    def _on_grid(self, index: float, moved: float) -> int:
        """The nearest step, but another one: a fifth of a small number must not round back to it."""
        away = math.copysign(1, moved - index) if moved != index else self._rng.choice((-1, 1))
        return round(index + away * max(1, round(abs(moved - index))))


def _is_number(choice: Scalar) -> bool:
    return isinstance(choice, int | float) and not isinstance(choice, bool)


def _number(choice: Scalar) -> float:
    assert isinstance(choice, int | float)
    return float(choice)
