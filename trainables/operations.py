"""The operations of the AutoAugment family on batches: the images that drew the same one are transformed together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainables import color
from trainables.geometry import affine, cached_parts

# Operations that only move pixels.
_MOVES = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
# The others, of (images, (B,) magnitudes float64).
_APPLY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Brightness": lambda images, magnitudes: color.brightness(images, 1 + magnitudes),
    "Color": lambda images, magnitudes: color.saturation(images, 1 + magnitudes),
    "Contrast": lambda images, magnitudes: color.contrast(images, 1 + magnitudes),
    "Sharpness": lambda images, magnitudes: color.sharpness(images, 1 + magnitudes),
    "Posterize": color.posterize,
    "Solarize": lambda images, magnitudes: color.solarize(images, 255 * magnitudes),
    "AutoContrast": lambda images, _: color.auto_contrast(images),
    "Equalize": lambda images, _: color.equalize(images),
    "Invert": lambda images, _: ~images,
}
_KINDS = ("Identity", "Move", *_APPLY)
# A table of moves is kept for small images, where it makes a batch 3 times faster; entries of 8 bytes.
_MOST_TABLE_ENTRIES = 2**22


@dataclass(frozen=True)
class Operation:
    """One operation and the magnitudes that it may have.

    Attributes:
        name: as in torchvision.
        magnitudes: one for each bin, with torchvision's meaning; the same for all where the operation has none.
        signed: whether half of the draws turn the magnitude negative.
    """

    name: str
    magnitudes: tuple[float, ...]
    signed: bool = False


class Operations:
    """A policy's operations, for images of one size on one device.

    Each result is that of torchvision's operation of the same name and magnitude, with black coming in from outside;
    moved pixels are nearest neighbours, or interpolated with `bilinear` (then equal up to rounding).

    Args:
        operations: all with the same number of bins.
        height: of the images in pixels.
        width: of the images in pixels.
        device: of the images.
        bilinear: interpolate moved pixels.

    Source: torchvision's AutoAugment, RandAugment, TrivialAugmentWide and AugMix.
    """

    def __init__(
        self,
        operations: Sequence[Operation],
        *,
        height: int,
        width: int,
        device: torch.device,
        bilinear: bool = False,
    ) -> None:
        self.names = tuple(each.name for each in operations)
        self._num_bins = len(operations[0].magnitudes)
        # A row for each operation, bin and sign, in this order.
        rows = [(each, value * sign) for each in operations for value in each.magnitudes for sign in _signs(each)]
        self._kinds = np.array([_KINDS.index("Move" if each.name in _MOVES else each.name) for each, _ in rows])
        self.magnitudes = np.array([magnitude for _, magnitude in rows])
        self._moves = {row: (op.name, value) for row, (op, value) in enumerate(rows) if op.name in _MOVES}
        self.matrices = np.zeros((len(rows), 2, 3)) if bilinear else None
        self._table: Tensor | None = None
        if self.matrices is not None:
            for row, (name, magnitude) in self._moves.items():
                self.matrices[row] = _matrix(name, magnitude, height, width)
        elif len(self._moves) * height * width <= _MOST_TABLE_ENTRIES:
            self._table = _move_table(list(self._moves.values()), height, width).to(device)
            self._table_rows = np.searchsorted(list(self._moves), np.arange(len(rows)))

    def __call__(self, images: Tensor, chosen: np.ndarray, *, bins: np.ndarray, negative: np.ndarray) -> Tensor:
        """Each image by its operation.

        Args:
            images: (B, C, H, W) uint8, contiguous.
            chosen: (B,) int64, number of the operation.
            bins: (B,) int64, which of its magnitudes.
            negative: (B,) bool, whether a signed magnitude is negative.

        Returns:
            (B, C, H, W) uint8, a new tensor, contiguous.
        """
        rows = self.rows(chosen, bins=bins, negative=negative)
        kinds = self._kinds[rows]
        # Sorted by kind, so that each works in place on a slice: much faster than to pick images out and put them back.
        order = np.argsort(kinds, kind="stable")
        sorted_images, rows = _reorder(images, order), rows[order]
        stops = np.bincount(kinds, minlength=len(_KINDS)).cumsum().tolist()
        for kind, start, stop in zip(_KINDS[1:], stops, stops[1:], strict=False):
            for part in cached_parts(images, start=start, stop=stop):
                sorted_images[part] = self._apply(kind, sorted_images[part], rows[part])
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return _reorder(sorted_images, back)

    def rows(self, chosen: np.ndarray, *, bins: np.ndarray, negative: np.ndarray) -> np.ndarray:
        """(B,) int64: the row of `magnitudes` that holds the signed magnitude of each draw."""
        rows: np.ndarray = 2 * (chosen * self._num_bins + bins) + negative
        return rows

    def _apply(self, kind: str, images: Tensor, rows: np.ndarray) -> Tensor:
        if kind == "Move":
            return self._move(images, rows)
        return _APPLY[kind](images, torch.from_numpy(self.magnitudes[rows]).to(images.device, non_blocking=True))

    def _move(self, images: Tensor, rows: np.ndarray) -> Tensor:
        if self.matrices is not None:
            return affine(images, self.matrices[rows])
        if self._table is not None:
            places = self._table[torch.from_numpy(self._table_rows[rows]).to(images.device, non_blocking=True)]
            pixels = F.pad(images.flatten(2), (1, 0))  # place 0 is black
            return pixels.gather(2, places[:, None].expand(-1, images.shape[1], -1)).view_as(images)
        moved = torch.empty_like(images)
        for row in np.unique(rows).tolist():
            same = torch.from_numpy(np.flatnonzero(rows == row)).to(images.device, non_blocking=True)
            moved[same] = _move_all(images[same], *self._moves[row])
        return moved


def strengths(*, height: int, width: int, num_bins: int) -> dict[str, tuple[float, ...]]:
    """Magnitudes of the operations that AutoAugment and RandAugment share, weakest first, but for the sign.

    Source: torchvision's tables of AutoAugment and RandAugment.
    """

    none, evenly = (0.0,) * num_bins, partial(evenly_spaced, num_bins=num_bins)
    return {
        "Identity": none,
        "ShearX": evenly(0.0, 0.3),
        "ShearY": evenly(0.0, 0.3),
        "TranslateX": evenly(0.0, 150.0 / 331.0 * width),
        "TranslateY": evenly(0.0, 150.0 / 331.0 * height),
        "Rotate": evenly(0.0, 30.0),
        "Brightness": evenly(0.0, 0.9),
        "Color": evenly(0.0, 0.9),
        "Contrast": evenly(0.0, 0.9),
        "Sharpness": evenly(0.0, 0.9),
        "Posterize": tuple(float(round(each)) for each in evenly(8.0, 4.0)),
        "Solarize": evenly(1.0, 0.0),
        "AutoContrast": none,
        "Equalize": none,
    }


def evenly_spaced(at_weakest: float, at_strongest: float, *, num_bins: int) -> tuple[float, ...]:
    """Magnitudes in torchvision's own float32 arithmetic: another last bit would give other pixels."""
    return tuple(torch.linspace(at_weakest, at_strongest, num_bins).tolist())


def with_signs(magnitudes: Mapping[str, tuple[float, ...]]) -> list[Operation]:
    """The operations of these magnitudes; those that go both ways get a sign."""
    unsigned = ("Identity", "Posterize", "Solarize", "AutoContrast", "Equalize", "Invert")
    return [Operation(name, values, signed=name not in unsigned) for name, values in magnitudes.items()]


def _signs(operation: Operation) -> tuple[int, int]:
    return (1, -1) if operation.signed else (1, 1)


def _reorder(images: Tensor, order: np.ndarray) -> Tensor:
    index = torch.from_numpy(order).to(images.device, non_blocking=True)
    return images.flatten(1).index_select(0, index).view_as(images)


def _move_table(moves: Sequence[tuple[str, float]], height: int, width: int) -> Tensor:
    """(len(moves), H * W) int64: 1 + the place that each pixel comes from, 0 for black.

    Read off torchvision's operations themselves, by applying them to an image of places, float32 as for uint8 images:
    nearest neighbours computed in another way would differ where two are equally near.
    """
    places = torch.arange(1, height * width + 1, dtype=torch.float32).view(1, 1, height, width)
    table = torch.zeros(len(moves), height * width, dtype=torch.int64)
    for row, (name, magnitude) in enumerate(moves):
        table[row] = _move_all(places, name, magnitude).round().to(torch.int64).reshape(-1)
    return table


def _move_all(images: Tensor, name: str, magnitude: float) -> Tensor:
    """All images moved alike, by nearest neighbours."""
    from torchvision.transforms.v2 import functional as tv

    if name == "Rotate":
        rotated: Tensor = tv.rotate(images, angle=magnitude)
        return rotated
    translate, shear, center = [0, 0], [0.0, 0.0], None
    if name in ("TranslateX", "TranslateY"):
        translate[name == "TranslateY"] = int(magnitude)
    else:
        shear[name == "ShearY"] = math.degrees(math.atan(magnitude))
        center = [0, 0]
    moved: Tensor = tv.affine(images, angle=0.0, translate=translate, scale=1.0, shear=shear, center=center)
    return moved


def _matrix(name: str, magnitude: float, height: int, width: int) -> np.ndarray:
    """(2, 3): where a pixel comes from; places in pixels from the middle of the image."""
    match name:
        case "ShearX":
            rows = [[1, magnitude, magnitude * height / 2], [0, 1, 0]]
        case "ShearY":
            rows = [[1, 0, 0], [magnitude, 1, magnitude * width / 2]]
        case "TranslateX":
            rows = [[1, 0, -int(magnitude)], [0, 1, 0]]
        case "TranslateY":
            rows = [[1, 0, 0], [0, 1, -int(magnitude)]]
        case _:
            cos, sin = math.cos(math.radians(magnitude)), math.sin(math.radians(magnitude))
            rows = [[cos, -sin, 0], [sin, cos, 0]]
    return np.array(rows, np.float64)
