"""What does a comparison of search methods say? Medians with bootstrap intervals, as Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.peers.methods import METHODS, OURS

_RESAMPLES = 2000

# A run without the target counts as so many times the cut-off where runs are compared one by one.
_WITHOUT_TARGET = 1.5


class Run(Protocol):
    """The part of a row that the tables are made of."""

    family: str
    task: str
    devices: int
    method: str
    seed: int
    part: float | None
    best_10: float | None


def tables(runs: Sequence[Run], *, cut_off: float) -> str:
    """One table for each family of tasks and number of devices, and one for all tasks together.

    A method that was not run on every task of a table is left out of it.

    Args:
        cut_off: part of random search's time at which methods that had not reached the target were cut off.
    """
    groups = defaultdict(list)
    for each in runs:
        groups[each.family, each.devices].append(each)
        groups["all tasks", each.devices].append(each)
    return "\n\n".join(
        f"### {family}, {devices} at a time\n\n{_table(part, cut_off=cut_off)}"
        for (family, devices), part in sorted(groups.items(), key=lambda item: (item[0][1], item[0][0]))
    )


def _table(runs: Sequence[Run], *, cut_off: float) -> str:
    parts: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in METHODS}
    for each in sorted(runs, key=lambda run: run.seed):
        # Beyond the cut-off nothing is known but the order: the median is right while it lies before it.
        parts[each.method][each.task].append(np.inf if each.part is None else each.part)
    ours = parts[OURS]
    lines = [
        "| method | runs | reached the target | part of random search's time | speed-up | time / ours | run by run |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, by_task in parts.items():
        if by_task.keys() != ours.keys():
            continue
        every = np.concatenate([np.array(values) for values in by_task.values()])
        middle, low, high = _interval([by_task])
        ratio, ratio_low, ratio_high = _interval([by_task, ours])
        lines.append(
            f"| {name} | {len(every)} | {np.isfinite(every).mean():.0%} | {_told(middle, cut_off)} "
            f"({_told(low, cut_off)} to {_told(high, cut_off)}) | {_faster(middle, cut_off)} | "
            f"{_ratio(ratio)} ({_ratio(ratio_low)} to {_ratio(ratio_high)}) | "
            f"{_run_by_run(by_task, ours, without=_WITHOUT_TARGET * cut_off)} |"
        )
    return "\n".join(lines)


def _run_by_run(theirs: Mapping[str, Sequence[float]], ours: Mapping[str, Sequence[float]], *, without: float) -> str:
    """Geometric mean of the ratios of runs with the same task and seed, with its 95 % interval.

    Args:
        without: what a run that did not reach the target counts as.
    """
    ratios = [
        np.log(np.minimum(theirs[task], without)) - np.log(np.minimum(ours[task][: len(theirs[task])], without))
        for task in theirs
    ]
    rng = np.random.default_rng(0)
    drawn = [np.concatenate(_redrawn(ratios, rng)).mean() for _ in range(_RESAMPLES)]
    middle = np.concatenate(ratios).mean()
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{np.exp(middle):.2f} ({np.exp(low):.2f} to {np.exp(high):.2f})"


def _interval(sides: Sequence[Mapping[str, Sequence[float]]]) -> tuple[float, float, float]:
    """The median over all runs, or the ratio of two medians, with its 95 % interval.

    Bootstrap: seeds are drawn anew within each task, as the tasks are given and the seeds are chance.
    """
    rng = np.random.default_rng(0)
    found = _statistic([list(side.values()) for side in sides])
    drawn = [_statistic([_redrawn(side.values(), rng) for side in sides]) for _ in range(_RESAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975], method="nearest")
    return found, float(low), float(high)


def _redrawn(samples: Iterable[Sequence[float]], rng: np.random.Generator) -> list[NDArray[np.float64]]:
    return [rng.choice(np.asarray(values), size=len(values)) for values in samples]


def _statistic(sides: Sequence[Sequence[Sequence[float]]]) -> float:
    # The higher of the two middle values, so that nothing is averaged with what is beyond the cut-off.
    medians = [float(np.quantile(np.concatenate(side), 0.5, method="higher")) for side in sides]
    if len(medians) == 1:
        return medians[0]
    return float(medians[0] / medians[1]) if np.isfinite(medians[1]) else np.nan


def _told(part: float, cut_off: float) -> str:
    return f"{part:.3f}" if np.isfinite(part) else f"> {cut_off:g}"


def _faster(part: float, cut_off: float) -> str:
    return f"{1 / part:.1f}" if np.isfinite(part) else f"< {1 / cut_off:.1f}"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "?"
