"""Where do images and weights lie, seen from anywhere? Paths of a search made absolute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search.domains import CategoricalDomain, Domain, Param
from search.forbid import Combination
from search.matching import Match
from search.start_from import EarlierRun, Start
from trainables.config import DataConfig


def absolute_data(data: DataConfig) -> DataConfig:
    """The data with `root` and `csv` absolute.

    The root of a huggingface data set stays as it is where no such folder exists: it is the name of one of the hub.
    """
    paths = {"csv": data.csv, "root": data.root}
    if data.name == "huggingface" and data.root is not None and not Path(data.root).expanduser().exists():
        del paths["root"]
    return data.model_copy(update={key: _absolute(path) for key, path in paths.items() if path is not None})


def absolute_weights(
    space: Mapping[str, Param], *, starts: Sequence[Start], forbid: Sequence[Combination]
) -> tuple[dict[str, Param], tuple[Start, ...], tuple[Combination, ...]]:
    """The sections `space`, `start_from` and `forbid` with every value of `weights`, and every run, absolute."""
    params = {name: _of_param(param) if name == "weights" else param for name, param in space.items()}
    for name, param in params.items():
        if isinstance(param, Domain) and param.when is not None:
            params[name] = param.model_copy(update={"when": _of_matches(param.when)})
    return params, tuple(map(_of_start, starts)), tuple(_of_matches(combination) for combination in forbid)


def _of_param(param: Param) -> Param:
    if not isinstance(param, CategoricalDomain):
        return param if isinstance(param, Domain) else _of(param)
    prior = param.prior and param.prior.model_copy(update={"value": _of(param.prior.value)})
    return param.model_copy(update={"values": tuple(map(_of, param.values)), "prior": prior})


def _of_start(start: Start) -> Start:
    if isinstance(start, EarlierRun):
        return start if "://" in start.run else start.model_copy(update={"run": _absolute(start.run)})
    return {name: _of(each) if name == "weights" else each for name, each in start.items()}


def _of_matches(matches: Mapping[str, Match]) -> dict[str, Match]:
    return {
        name: tuple(map(_of, match)) if name == "weights" and isinstance(match, tuple) else match
        for name, match in matches.items()
    }


def _of(value: Any) -> Any:
    return _absolute(value) if isinstance(value, str) else value


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())
