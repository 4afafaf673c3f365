"""What does a search know when it begins? Trials of earlier runs that hold for it, and what became of the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from search.report_source import read_json
from search.results import RunPaths, write_json
from trainables.errors import ConfigError

Params = dict[str, Any]


@dataclass(frozen=True)
class KnownTrial:
    """A trial of an earlier run whose scores hold for this search.

    Attributes:
        run: the earlier run's folder, as it is shown.
        trial: its number there.
        params: the searched parameters of this space.
        curve: the metric by epoch, from 1.
        complete: whether it was trained to its end.
        train_s: seconds that it took; 0 where they are not those of this machine.
        again: whether it is to be run in this search too.
    """

    run: str
    trial: int
    params: Mapping[str, Any]
    curve: Mapping[int, float]
    score: float
    complete: bool
    objectives: Mapping[str, float] = field(default_factory=dict)
    train_s: float = 0.0
    again: bool = False


@dataclass(frozen=True)
class TakenRun:
    """What became of one earlier run.

    Attributes:
        trials: that it ran.
        carried: of them, how many are known with their scores.
        again: how many of its parameter sets are tried first.
        lines: the same for a person, with what did not carry over, by reason.
        nothing: whether nothing of it is of any use here.
    """

    run: str
    trials: int
    carried: int
    again: int
    lines: tuple[str, ...]
    nothing: bool


@dataclass(frozen=True)
class Knowledge:
    """What a search begins with; kept in the run's folder, so that a resume does not need the earlier runs.

    Attributes:
        points: parameter sets to be tried first.
    """

    trials: tuple[KnownTrial, ...] = ()
    points: tuple[Params, ...] = ()
    runs: tuple[TakenRun, ...] = ()


def write_knowledge(knowledge: Knowledge, paths: RunPaths) -> None:
    """Keeps it in the run's folder."""
    write_json(paths.start_from, asdict(knowledge))


def read_knowledge(paths: RunPaths) -> Knowledge | None:
    """What `write_knowledge` wrote; None where there is none.

    Raises:
        ConfigError: if it cannot be read.
    """
    kept = read_json(paths.start_from)
    if kept is None:
        return None
    try:
        trials = [
            KnownTrial(**{**each, "curve": {int(epoch): value for epoch, value in each["curve"].items()}})
            for each in kept["trials"]
        ]
        runs = [TakenRun(**{**each, "lines": tuple(each["lines"])}) for each in kept["runs"]]
        return Knowledge(tuple(trials), tuple(kept["points"]), tuple(runs))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{paths.start_from}: cannot be read ({error!r}); restore it from a copy") from error
