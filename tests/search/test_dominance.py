"""Which of several trade-offs is ahead: fronts, and the order within them."""

from __future__ import annotations

import random

import pytest

from search.dominance import Losses, front_of, ranked
from search.ledger import Status, TrialRecord, pareto_front


def dominates(one: Losses, other: Losses) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other


def drawn(seed: int, *, objectives: int, ties: bool) -> dict[int, Losses]:
    rng = random.Random(seed)
    value = (lambda: float(rng.randrange(4))) if ties else rng.random
    return {number: tuple(value() for _ in range(objectives)) for number in rng.sample(range(100), 30)}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("objectives", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_the_front_is_what_nothing_dominates(seed: int, objectives: int, ties: bool) -> None:
    points = drawn(seed, objectives=objectives, ties=ties)
    by_hand = [
        number for number, point in points.items() if not any(dominates(other, point) for other in points.values())
    ]
    assert front_of(points) == sorted(by_hand)


@pytest.mark.parametrize("objectives", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_nothing_stands_ahead_of_what_dominates_it(seed: int, objectives: int) -> None:
    points = drawn(seed, objectives=objectives, ties=True)
    order = ranked(points)
    assert sorted(order) == sorted(points)
    front = front_of(points)
    assert sorted(order[: len(front)]) == front
    for place, number in enumerate(order):
        assert not any(dominates(points[later], points[number]) for later in order[place + 1 :])


def test_a_front_begins_with_the_best_score_and_its_opposite() -> None:
    """0 to 10 lie on a line from best and dearest to worst and cheapest; any beginning of the order is spread out."""
    points: dict[int, Losses] = {number: (number / 10, 1e6 * (10 - number)) for number in range(11)}
    order = ranked(points)
    assert order[:3] == [0, 10, 5]
    assert set(order[3:5]) <= {2, 3, 7, 8}


def test_one_objective_is_ranked_by_its_value_and_the_first_of_equals_is_ahead() -> None:
    assert ranked({4: (0.2,), 1: (0.1,), 7: (0.2,), 3: (-0.5,)}) == [3, 1, 4, 7]
    assert ranked({}) == front_of({}) == []


def test_what_diverged_is_behind_all_on_its_own_cost() -> None:
    assert ranked({0: (float("inf"), 1.0), 1: (0.5, 1.0), 2: (0.5, 2.0)})[0] == 1


def test_trials_without_a_score_are_on_no_front() -> None:
    def record(number: int, score: float | None, cost: float, status: Status = Status.STOPPED) -> TrialRecord:
        return TrialRecord(number=number, params={}, status=status, score=score, objectives={"flops": cost})

    records = [
        record(0, 0.9, 5.0),
        record(1, 0.8, 1.0),
        record(2, 0.7, 2.0),
        record(3, None, 0.1),
        record(4, 0.99, 0.1, Status.FAILED),
    ]
    assert pareto_front(records, metric="val_top1", objectives=["flops"]) == [0, 1]
    assert pareto_front(records, metric="val_loss", objectives=["flops"]) == [1, 2]
