"""The record of the benchmarks' ratios."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks.history import Entry, add, entries_of, is_worse, load, table
from tests.benchmarks.ratios import NOTED_IN, Ratio, ratio, read

ENTRY = Entry(
    commit="abc1234",
    date="2026-01-31",
    machine="x86_64, 2 cores",
    name="crop",
    better="higher",
    middle=10.0,
    least=9.0,
    most=11.0,
    rounds=5,
)


def test_ratios_are_noted_where_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "ratios.jsonl"
    monkeypatch.delenv(NOTED_IN, raising=False)
    ratio("flip", [1.0, 2.0], better="lower")
    monkeypatch.setenv(NOTED_IN, str(file))
    assert read(file) == []
    crop, flip = ratio("crop", [3.0, 1.0, 2.5], better="higher"), ratio("flip", [1.0], better="lower")
    assert read(file) == [crop, flip]
    assert (crop.middle, crop.least, crop.most, crop.rounds) == (2.5, 1.0, 3.0, 3)


@pytest.mark.parametrize(
    ("rounds", "better", "worse"),
    [
        ([7.0, 8.0, 8.5], "higher", True),
        ([7.0, 8.0, 10.5], "higher", False),  # its rounds reach the entry's median
        ([8.0, 9.5, 9.9], "higher", False),  # its median lies in the entry's range
        ([12.0, 13.0, 14.0], "higher", False),
        ([12.0, 13.0, 14.0], "lower", True),
        ([7.0, 8.0, 8.5], "lower", False),
    ],
)
def test_worse_is_what_both_spreads_leave_out(rounds: list[float], better: str, worse: bool) -> None:
    then = replace(ENTRY, better=better)
    assert is_worse(ratio("crop", rounds, better=better), then) is worse  # type: ignore[arg-type]


def test_the_last_entry_of_each_figure_counts(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    assert load(path) == {}
    add(path, [ENTRY, replace(ENTRY, name="flip")])
    later = replace(ENTRY, commit="def5678", middle=12.0, most=13.5)
    add(path, [later])
    assert load(path) == {"crop": later, "flip": replace(ENTRY, name="flip")}
    told = table([Ratio("crop", "higher", 8.0, 7.0, 9.0, 5), Ratio("jitter", "higher", 3.0, 2.0, 4.0, 5)], load(path))
    assert "| crop | higher | 12.00 (9.00 to 13.50), def5678 | 8.00 (7.00 to 9.00) | WORSE |" in told
    assert "| jitter | higher | none | 3.00 (2.00 to 4.00) | new |" in told


def test_entries_name_the_commit_and_the_machine() -> None:
    (entry,) = entries_of([Ratio("crop", "higher", 8.00004, 7.0, 9.0, 5)])
    assert len(entry.commit) >= 7 and "cores" in entry.machine and "torch" in entry.machine
    assert (entry.name, entry.middle) == ("crop", 8.0)
