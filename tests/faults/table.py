"""The figures of fault injection: a line a case in a CSV file, of which the table is made."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median

from tests.faults.catalogue import FAULTS


@dataclass(frozen=True)
class Row:
    """One case.

    Attributes:
        again: whole epochs that were trained a second time.
        restarts: of trials, each of which loses the epoch under way.
        recovery_s: until every trial that was in training had come two epochs further; None where none did.
        problems: what was wrong at the end; empty where the fault was survived.
    """

    fault: str
    seed: int
    again: int
    restarts: int
    recovery_s: float | None
    problems: str
    commit: str

    @property
    def survived(self) -> bool:
        return not self.problems


def read_rows(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Row(
                fault=each["fault"],
                seed=int(each["seed"]),
                again=int(each["again"]),
                restarts=int(each["restarts"]),
                recovery_s=float(each["recovery_s"]) if each["recovery_s"] else None,
                problems=each["problems"],
                commit=each["commit"],
            )
            for each in csv.DictReader(file)
        ]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def replaced(rows: Sequence[Row], new: Row) -> list[Row]:
    """The rows with a new one in the place of that of the same fault and seed."""
    kept = [row for row in rows if (row.fault, row.seed) != (new.fault, new.seed)]
    order = list(FAULTS)
    return sorted([*kept, new], key=lambda row: (order.index(row.fault), row.seed))


def markdown(rows: Sequence[Row]) -> str:
    """The table, and below it what went wrong."""
    lines = [
        "| fault | injected | survived | epochs trained again | trials restarted | seconds to recover |",
        "|---|---|---|---|---|---|",
    ]
    for name, fault in FAULTS.items():
        cases = [row for row in rows if row.fault == name]
        if cases:
            lines.append(_line(fault.words, cases, struck=not name.startswith("none-")))
    failed = [f"- {FAULTS[row.fault].words}, seed {row.seed}: {row.problems}" for row in rows if not row.survived]
    return "\n".join([*lines, "", *(failed or ["Every case was survived."])])


def _line(words: str, cases: Sequence[Row], *, struck: bool) -> str:
    times = sorted(row.recovery_s for row in cases if row.recovery_s is not None)
    recovery = f"{median(times):.0f} ({times[0]:.0f} to {times[-1]:.0f})" if times and struck else "-"
    survived, again = sum(row.survived for row in cases), sum(row.again for row in cases)
    restarts = sum(row.restarts for row in cases)
    return f"| {words} | {len(cases)} | {survived} | {again} | {restarts} | {recovery} |"
