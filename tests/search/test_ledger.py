"""What the ledger keeps count of, against a look at every record; and trees against scikit-learn's own forest."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesRegressor

from search.ledger import UNFINISHED, Ledger, Lineage, Status, TrialRecord, rank
from search.restarts import Restarts
from search.trees import tree_predictions


@pytest.mark.parametrize("metric", ["val_top1", "val_loss"])
def test_totals_and_leader_are_those_of_all_records(metric: str) -> None:
    rng = random.Random(0)
    ledger = Ledger(metric=metric)
    for _ in range(2_000):
        number = rng.randrange(40)
        if rng.random() < 0.05 and number in {record.number for record in ledger.records()}:
            ledger.drop(number)
            continue
        epochs = rng.randrange(4)
        record = TrialRecord(
            number=number,
            params={},
            status=rng.choice(list(Status)),
            curve=dict.fromkeys(range(1, epochs + 1), 0.5),
            score=rng.choice([0.1, 0.5, 0.9]) if epochs else None,
            val_loss=rng.choice([0.2, 0.3]) if epochs else None,
            restarts=Restarts(lost=rng.randrange(2), preempted=rng.randrange(2)),
        )
        ledger.put(record)
        records = ledger.records()
        totals = ledger.totals
        assert {status: count for status, count in totals.counts.items() if count} == Counter(r.status for r in records)
        assert totals.finished == sum(r.status not in UNFINISHED for r in records)
        assert totals.epochs == sum(r.epochs for r in records)
        assert (totals.lost, totals.preempted) == tuple(
            sum(getattr(r.restarts, kind) for r in records) for kind in ("lost", "preempted")
        )
        usable = [r for r in records if r.score is not None and r.status is not Status.FAILED]
        assert ledger.best() == (rank(usable, metric=metric)[0] if usable else None)


def test_of_a_trial_and_those_that_took_its_place_the_last_counts() -> None:
    ledger = Ledger(metric="val_top1")
    curve = {1: 0.5, 2: 0.6}
    for number in range(3):
        ledger.put(TrialRecord(number=number, params={}, curve=curve, score=0.6, status=Status.RUNNING))
    heir = TrialRecord(number=3, params={}, curve=curve, score=0.6, lineage=Lineage(parent=0, replaces=1, epoch=2))
    ledger.put(heir)
    ledger.put(replace(ledger.get(1), status=Status.STOPPED))
    assert (ledger.totals.finished, ledger.totals.epochs) == (0, 6)
    for number in (0, 2):
        ledger.put(replace(ledger.get(number), status=Status.COMPLETED))
    ledger.put(replace(heir, curve={**curve, 3: 0.7}, status=Status.COMPLETED))
    assert (ledger.totals.finished, ledger.totals.epochs) == (3, 7)


def test_a_leader_that_fails_makes_room_for_the_next() -> None:
    ledger = Ledger(metric="val_top1")
    first, second = (TrialRecord(number=n, params={}, curve={1: s}, score=s) for n, s in ((0, 0.9), (1, 0.8)))
    ledger.put(first)
    ledger.put(second)
    ledger.put(replace(first, status=Status.FAILED))
    assert ledger.best() == second


def test_trees_are_those_of_a_forest() -> None:
    rng = np.random.default_rng(0)
    rows, asked = rng.random((200, 5), dtype=np.float32), rng.random((30, 5), dtype=np.float32)
    targets = rows[:, 0] + 0.1 * rng.random(200)
    said = tree_predictions(rows, targets, asked, num_trees=7, most_rows=200, seed=3)
    forest = ExtraTreesRegressor(7, bootstrap=True, random_state=3).fit(rows, targets)
    np.testing.assert_array_equal(said, [tree.tree_.predict(asked)[:, 0] for tree in forest.estimators_])


def test_trees_learn_from_a_part_of_many_rows() -> None:
    rng = np.random.default_rng(0)
    rows = rng.random((3_000, 2), dtype=np.float32)
    said = tree_predictions(rows, rows[:, 0].astype(np.float64), rows[:50], num_trees=20, most_rows=500, seed=3)
    assert np.abs(said.mean(axis=0) - rows[:50, 0]).max() < 0.1
    assert np.abs(said - rows[:50, 0]).max() > 0.001  # of 3,000 rows each tree lacks most of these
