"""Which trials are ahead when there is more than one objective? Fronts of trials that none other beats, spread out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

# What a trial is compared by: its score and its objectives, each turned so that lower is better.
Losses = tuple[float, ...]

# Stands for infinity, which no distance can be measured to.
_FURTHEST = 1e30


def ranked(points: Mapping[int, Losses]) -> list[int]:
    """Trials from best to worst, by number.

    With one objective by its value; of equals the one that stands first in `points` is ahead. With several by
    non-dominated sorting: first the front, which nothing dominates, then what is the front without it, and so on. A
    front is ordered so that any beginning of it is spread out: its best in the first objective, then always the trial
    furthest from those chosen (an epsilon-net), distances measured in shares of the front's range.

    Args:
        points: by trial; all of one length, and none of them NaN.

    Source: Schmucker et al., Multi-objective Asynchronous Successive Halving, arXiv:2106.12639.
    """
    numbers = list(points)
    if not numbers or len(points[numbers[0]]) == 1:
        return sorted(numbers, key=lambda number: points[number][0])
    losses = np.clip([points[number] for number in numbers], -_FURTHEST, _FURTHEST)
    fronts = _fronts(losses)
    order: list[int] = []
    for front in range(int(fronts.max()) + 1):
        members = np.flatnonzero(fronts == front)
        order += [int(members[place]) for place in _spread(losses[members])]
    return [numbers[place] for place in order]


def front_of(points: Mapping[int, Losses]) -> list[int]:
    """The trials that no other dominates, by number: none is as good in every objective and better in one."""
    numbers = list(points)
    if not numbers:
        return []
    fronts = _fronts(np.array([points[number] for number in numbers]))
    return sorted(number for number, front in zip(numbers, fronts, strict=True) if front == 0)


def _fronts(losses: NDArray[np.float64]) -> NDArray[np.int64]:
    """The front of each row (N, O), from 0."""
    from optuna.study._multi_objective import _fast_non_domination_rank  # trials, which rank nothing, do without Optuna

    fronts: NDArray[np.int64] = _fast_non_domination_rank(losses)
    return fronts


def _spread(losses: NDArray[np.float64]) -> Sequence[int]:
    """Rows (N, O), each the furthest from those before it; of equals the first."""
    low, high = losses.min(axis=0), losses.max(axis=0)
    scaled = (losses - low) / np.where(high > low, high - low, 1.0)
    chosen = [int(np.lexsort(losses.T[::-1])[0])]
    distance = np.full(len(scaled), np.inf)
    while len(chosen) < len(scaled):
        distance = np.minimum(distance, np.linalg.norm(scaled - scaled[chosen[-1]], axis=1))
        distance[chosen] = -1.0
        chosen.append(int(distance.argmax()))
    return chosen
