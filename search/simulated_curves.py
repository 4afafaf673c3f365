"""Which learning curve does a simulated trial have? A recorded one, looked up by its parameters."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from search.curve_table import CurveTable
from search.domains import CategoricalDomain, Domain
from trainables.errors import ConfigError

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Curve:
    """What a training with some parameters reports, if it is let run to its end.

    Attributes:
        values: the search metric after each epoch, (E,); NaN from the epoch on in which the training diverged.
        losses: validation loss after each epoch, (E,).
        seconds: what each epoch takes, (E,).
    """

    values: Array
    losses: Array
    seconds: Array

    @property
    def epochs(self) -> int:
        """Epochs of the whole training."""
        return len(self.values)


class CurveSource(Protocol):
    """Where the trials of one simulated search get their curves from."""

    def curve(self, params: Mapping[str, Any]) -> Curve:
        """The curve of a new trial, by its parameters, fixed ones included; asked once a trial."""
        ...


class RecordedCurves:
    """Gives each trial the recorded curve whose parameters are nearest, each curve once in a search.

    Real curves with their noise, rather than averages of several. Nearest is by the sum of squared differences: numbers
    are compared on the scale that the space searches them on, its range taken for 1, and a categorical value that
    differs counts 1. Where no curve is left of those that may be taken, they are used again.

    Args:
        agree: categorical parameters that must be equal; by default all.
    """

    def __init__(self, table: CurveTable, *, agree: Collection[str] | None = None) -> None:
        self._table = table
        self._scales = [_Scale.of(domain) for domain in table.domains.values()]
        self._agree = [name in (table.domains if agree is None else agree) for name in table.domains]
        self._places = self._placed(table.params)
        self._left = np.ones(len(table), dtype=bool)
        cells = defaultdict(list)
        for index, row in enumerate(table.params):
            cells[self._cell_of(row)].append(index)
        self._cells = {cell: np.array(indices) for cell, indices in cells.items()}

    def curve(self, params: Mapping[str, Any]) -> Curve:
        """The nearest curve that is left.

        Raises:
            ConfigError: if no recorded trial has the same categorical values.
        """
        index = self.take(params)
        values, table = self._table.values[index].astype(float), self._table
        return Curve(values, table.losses[index].astype(float), np.full(len(values), float(table.seconds[index])))

    def take(self, params: Mapping[str, Any]) -> int:
        """The row of the nearest curve that is left; it is not left afterwards."""
        row = self._table.row(params)
        among = self._cells.get(self._cell_of(row))
        if among is None:
            told = ", ".join(f"{name}: {value}" for name, value in params.items() if name in self._table.domains)
            raise ConfigError(
                f"no curve was recorded for the categorical values of {told}; record more, or search less"
            )
        if not self._left[among].any():
            self._left[among] = True
        among = among[self._left[among]]
        differences = np.abs(self._places[among] - self._placed(row[None]))
        # Two values of a categorical parameter are 1 apart; what both trials lack does not count.
        differences = np.nan_to_num(np.minimum(differences, 1.0))
        nearest = int(among[np.argmin((differences**2).sum(axis=1))])
        self._left[nearest] = False
        return nearest

    def _placed(self, params: NDArray[np.float32]) -> Array:
        return np.column_stack([scale.place(params[:, index]) for index, scale in enumerate(self._scales)])

    def _cell_of(self, row: NDArray[np.float32]) -> tuple[int, ...]:
        """What two trials must share to be compared: categorical values, and which parameters there are."""
        return tuple(
            -1 if math.isnan(value) else int(value) if scale.categorical and agrees else 0
            for value, scale, agrees in zip(row.tolist(), self._scales, self._agree, strict=True)
        )


@dataclass(frozen=True)
class _Scale:
    """How the values of one parameter are compared."""

    categorical: bool
    low: float = 0.0
    high: float = 1.0
    log: bool = False

    @classmethod
    def of(cls, domain: Domain) -> _Scale:
        if isinstance(domain, CategoricalDomain):
            return cls(categorical=True)
        return cls(categorical=False, low=domain.low, high=domain.high, log=domain.log)

    def place(self, values: NDArray[np.float32]) -> Array:
        """Values of the parameter with its range taken for 1, (N,)."""
        numbers = values.astype(float)
        if self.log:
            return np.asarray(np.log(numbers / self.low) / math.log(self.high / self.low))
        return (numbers - self.low) / (self.high - self.low)
