"""Which values may the parameters of a trial take together? Domains and fixed values, to Optuna define-by-run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from typing import Any

from search.config_errors import found, unknown_key
from search.domains import Domain, Param, Suggester
from search.parameters import param_problem


class Space:
    """The parameters of a search, in the order in which they are decided.

    Every method walks the parameters in that order and asks for one value at a time, so that a parameter whose
    existence depends on earlier choices needs no other interface.

    Args:
        params: domain or fixed value of each parameter, as in `SearchConfig.space`.
    """

    def __init__(self, params: Mapping[str, Param]) -> None:
        self._params = dict(params)

    @property
    def domains(self) -> dict[str, Domain]:
        """The parameters that are searched."""
        return {name: param for name, param in self._params.items() if isinstance(param, Domain)}

    @property
    def searched(self) -> tuple[str, ...]:
        """Names of the parameters that have a domain."""
        return tuple(self.domains)

    @property
    def fixed(self) -> dict[str, Any]:
        """The parameters that have one value in all trials."""
        return {name: param for name, param in self._params.items() if not isinstance(param, Domain)}

    def suggest(self, trial: Suggester) -> dict[str, Any]:
        """The parameters of one trial: chosen by Optuna, or fixed."""
        chosen: dict[str, Any] = {}
        for name, param in self._params.items():
            chosen[name] = param.suggest(trial, name) if isinstance(param, Domain) else param
        return chosen

    def contains(self, params: Mapping[str, Any], *, partial: bool = False) -> str | None:
        """Why parameters do not lie in this space; None when they do.

        Args:
            params: values by name; fixed parameters may be left out.
            partial: whether searched parameters may be left out too, as in a starting point.
        """
        for name, value in params.items():
            if name not in self._params:
                return f"{name}: {unknown_key(name, self._params)}"
            text = param_problem(self._params[name], value)
            if text is not None:
                return f"{name}: {text}"
        missing = [name for name in self.searched if name not in params]
        if missing and not partial:
            return f"{missing[0]}: is missing, found {', '.join(params) or 'nothing'}; give it a value"
        return None

    @property
    def num_combinations(self) -> int | None:
        """How many different trials there are; None when a domain is continuous."""
        counts = [domain.num_values for domain in self.domains.values()]
        finite = [count for count in counts if count is not None]
        return prod(finite) if len(finite) == len(counts) else None

    def combinations(self) -> Iterator[dict[str, Any]]:
        """All trials of a finite space, fixed values included; the last parameter varies fastest.

        Raises:
            ValueError: if the space is not finite.
        """
        if self.num_combinations is None:
            endless = [name for name, domain in self.domains.items() if domain.num_values is None]
            raise ValueError(f"the space is not finite, found {', '.join(endless)} continuous; give each a step")
        axes = [list(param.grid()) if isinstance(param, Domain) else [param] for param in self._params.values()]
        for values in product(*axes):
            yield dict(zip(self._params, values, strict=True))

    def describe(self) -> list[tuple[str, str]]:
        """Name and description of each parameter, as rows of a table."""
        return [
            (name, param.describe() if isinstance(param, Domain) else f"{_text(param)} (fixed)")
            for name, param in self._params.items()
        ]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "null" if value is None else found(value)
