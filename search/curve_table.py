"""How are the learning curves of many trainings kept? Parameters and curves as arrays in one compressed file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.domains import CategoricalDomain, Domain, dump_param, parse_domain
from search.scalars import same
from trainables.atomic_files import write_beside
from trainables.errors import ConfigError

_ARRAYS = ("params", "values", "losses", "seconds")


@dataclass(frozen=True)
class CurveTable:
    """Curves of trainings that differ by the searched parameters of a space; one row a training.

    Attributes:
        metric: the metric of `values`.
        domains: of the parameters, in the order of the columns of `params`.
        params: (N, P), float32; numbers as they are, of a categorical parameter the index of its value; NaN where a
            training does not have the parameter.
        values: the metric after each epoch, (N, E), float32; NaN from the epoch on in which a training diverged.
        losses: validation loss after each epoch, (N, E), float16.
        seconds: what one epoch takes, (N,), float32.
    """

    metric: str
    domains: Mapping[str, Domain]
    params: NDArray[np.float32]
    values: NDArray[np.float32]
    losses: NDArray[np.float16]
    seconds: NDArray[np.float32]

    @classmethod
    def empty(cls, domains: Mapping[str, Domain], *, metric: str, epochs: int) -> CurveTable:
        """A table without rows."""
        return cls(
            metric=metric,
            domains=domains,
            params=np.empty((0, len(domains)), dtype=np.float32),
            values=np.empty((0, epochs), dtype=np.float32),
            losses=np.empty((0, epochs), dtype=np.float16),
            seconds=np.empty(0, dtype=np.float32),
        )

    @classmethod
    def read(cls, path: Path) -> CurveTable:
        """The table in a file that `write` wrote.

        Raises:
            ConfigError: if there is no such file, or it holds something else.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                arrays = {name: file[name] for name in _ARRAYS}
        except (OSError, KeyError, ValueError) as error:
            raise ConfigError(
                f"{path}: holds no recorded curves, found {error}; record some by "
                "python -m tests.benchmarks.record_curves"
            ) from error
        parsed = {name: parse_domain(raw)[0] for name, raw in about["domains"].items()}
        return cls(about["metric"], {name: domain for name, domain in parsed.items() if domain is not None}, **arrays)

    def write(self, path: Path) -> None:
        """Writes the table atomically, compressed."""
        domains = {name: dump_param(domain) for name, domain in self.domains.items()}
        about = np.array(json.dumps({"metric": self.metric, "domains": domains}))
        arrays = {name: getattr(self, name) for name in _ARRAYS}

        def save(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez_compressed(file, about=about, **arrays)

        write_beside(path, save)

    def __len__(self) -> int:
        return len(self.seconds)

    @property
    def epochs(self) -> int:
        """Epochs of each training."""
        return int(self.values.shape[1])

    def with_training(
        self, params: Mapping[str, Any], *, values: Sequence[float], losses: Sequence[float], seconds: float
    ) -> CurveTable:
        """The table with one training more; one that diverged has fewer epochs than the others."""
        row = self.row(params)
        curves = [np.pad(curve, (0, self.epochs - len(curve)), constant_values=math.nan) for curve in (values, losses)]
        return replace(
            self,
            params=np.vstack([self.params, row]),
            values=np.vstack([self.values, curves[0].astype(np.float32)]),
            losses=np.vstack([self.losses, curves[1].astype(np.float16)]),
            seconds=np.append(self.seconds, np.float32(seconds)),
        )

    def row(self, params: Mapping[str, Any]) -> NDArray[np.float32]:
        """Parameters as a row of `params`, (P,); others than those of the table are passed over."""
        return np.array([_number(params.get(name), of) for name, of in self.domains.items()], dtype=np.float32)


def _number(value: Any, domain: Domain) -> float:
    if value is None:
        return math.nan
    if not isinstance(domain, CategoricalDomain):
        return float(value)
    return next((float(i) for i, choice in enumerate(domain.values) if same(choice, value)), math.nan)
