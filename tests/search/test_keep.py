"""What is spent, and what stays on disk."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from search.budget_config import BudgetConfig, KeepConfig
from search.keep import Keeper
from search.ledger import Status, TrialRecord, rank
from search.resources_config import ResourcesConfig
from search.spending import Spending

KIB = 1024


def weights(folder: Path, number: int) -> Path:
    return folder / f"{number}.safetensors"


def trial(number: int, score: float | None, *, status: Status = Status.STOPPED) -> TrialRecord:
    return TrialRecord(number=number, params={}, status=status, score=score, val_loss=1.0)


def end_all(folder: Path, config: KeepConfig, records: list[TrialRecord], *, at_least: int = 1) -> list[int]:
    """The numbers whose weights stay, of trials with weights of 1 KiB that end in this order."""
    keeper = Keeper(config, metric="val_top1", weights=lambda number: weights(folder, number), at_least=at_least)
    for record in records:
        weights(folder, record.number).write_bytes(bytes(KIB))
        keeper.ended(record)
    return sorted(int(path.stem) for path in folder.glob("*.safetensors"))


@pytest.mark.parametrize("seed", range(3))
def test_the_best_stay_in_whatever_order_trials_end(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    records = [trial(number, round(rng.random(), 1)) for number in range(20)]
    rng.shuffle(records)
    best = sorted(record.number for record in rank(records, metric="val_top1")[:4])
    assert end_all(tmp_path, KeepConfig(top=4), records) == best


def test_a_size_is_kept_to(tmp_path: Path) -> None:
    records = [trial(number, number / 10) for number in range(10)]
    assert end_all(tmp_path, KeepConfig(gib=3.5 * KIB / 2**30), records) == [7, 8, 9]


def test_what_the_winner_is_chosen_from_stays(tmp_path: Path) -> None:
    records = [trial(number, number / 10) for number in range(10)]
    assert end_all(tmp_path, KeepConfig(top=1, gib=KIB / 2**30), records, at_least=3) == [7, 8, 9]


def test_failed_trials_go_first_and_nothing_goes_by_default(tmp_path: Path) -> None:
    records = [trial(0, 0.9, status=Status.FAILED), trial(1, 0.1), trial(2, None)]
    assert end_all(tmp_path, KeepConfig(), records) == [0, 1, 2]
    assert end_all(tmp_path, KeepConfig(top=1), records) == [1]


def test_a_resumed_run_knows_what_it_kept(tmp_path: Path) -> None:
    records = [trial(number, number / 10) for number in range(4)]
    for record in records:
        weights(tmp_path, record.number).write_bytes(bytes(KIB))
    keeper = Keeper(KeepConfig(top=2), metric="val_top1", weights=lambda number: weights(tmp_path, number))
    keeper.take_up(records[:3])
    keeper.ended(records[3])
    assert sorted(int(path.stem) for path in tmp_path.glob("*")) == [2, 3]


@pytest.mark.parametrize(
    ("resources", "hours"),
    [
        (ResourcesConfig(), 1.0),
        (ResourcesConfig(cpus_per_worker=4), 4.0),
        (ResourcesConfig(workers=2, gpus_per_worker=1, cpus_per_worker=8), 2.0),
        (ResourcesConfig(gpus_per_worker=0.25), 0.25),
    ],
)
def test_device_hours_count_the_devices_of_a_trial(resources: ResourcesConfig, hours: float) -> None:
    spending = Spending(BudgetConfig(device_hours=hours, epochs=100), resources)
    spending.add(epochs=5, train_s=3599, workers=resources.workers_of("small_cnn"))
    assert spending.exhausted is None
    spending.add(epochs=1, train_s=1, workers=resources.workers_of("small_cnn"))
    assert spending.exhausted == f"the budget of {hours:g} device-hours is used up"
