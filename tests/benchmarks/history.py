"""Has anything become slower? Runs the benchmarks and compares their ratios with the last ones on record.

    python -m tests.benchmarks.history            # this working tree against the last entry of each figure
    python -m tests.benchmarks.history --add      # and puts them on record, for the commit that is checked out
    python -m tests.benchmarks.history -k augment # only those whose names pytest finds

Figures are ratios against a baseline of the same run, so entries of different machines can be compared as far as their
baselines can; the machine is noted with each. A figure is called worse where its median lies beyond the range of the
entry and the entry's beyond its own, in the wrong direction; then the exit status is 1.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks.ratios import NOTED_IN, Ratio, read

ROOT = Path(__file__).parents[2]
HISTORY = ROOT / "results" / "benchmark_history.csv"


@dataclass(frozen=True)
class Entry:
    """A figure on record.

    Attributes:
        commit: short hash of what was measured.
        date: ISO 8601 day, UTC.
        machine: processor architecture, cores, Python and torch.
    """

    commit: str
    date: str
    machine: str
    name: str
    better: str
    middle: float
    least: float
    most: float
    rounds: int


def load(path: Path) -> dict[str, Entry]:
    """The last entry of each figure, by name; none where there is no file yet."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["name"]: _entry(row) for row in csv.DictReader(file)}


def _entry(row: dict[str, str]) -> Entry:
    numbers = {name: float(row[name]) for name in ("middle", "least", "most")}
    return Entry(**{**row, **numbers, "rounds": int(row["rounds"])})  # type: ignore[arg-type]


def add(path: Path, entries: Iterable[Entry]) -> None:
    """Appends entries; nothing that is there changes."""
    begun = path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Entry)], lineterminator="\n")
        if not begun:
            writer.writeheader()
        writer.writerows(asdict(entry) for entry in entries)


def is_worse(now: Ratio, then: Entry) -> bool:
    """Whether a figure got worse by more than both its rounds and the entry's spread."""
    if now.better == "higher":
        return now.middle < then.least and now.most < then.middle
    return now.middle > then.most and now.least > then.middle


def table(ratios: Sequence[Ratio], known: dict[str, Entry]) -> str:
    """Each figure beside its last entry, as Markdown."""
    lines = ["| figure | better | last entry | now | |", "|---|---|---|---|---|"]
    for now in ratios:
        then = known.get(now.name)
        if then is None:
            lines.append(f"| {now.name} | {now.better} | none | {now} | new |")
            continue
        last = f"{then.middle:.2f} ({then.least:.2f} to {then.most:.2f}), {then.commit}"
        lines.append(f"| {now.name} | {now.better} | {last} | {now} | {'WORSE' if is_worse(now, then) else ''} |")
    return "\n".join(lines)


def measure(selection: str | None) -> tuple[int, list[Ratio]]:
    """Runs the benchmarks; pytest's exit status and what they noted."""
    with tempfile.TemporaryDirectory() as folder:
        noted = Path(folder) / "ratios.jsonl"
        command = [sys.executable, "-m", "pytest", "-q", "-s", "-m", "benchmark", "tests/benchmarks"]
        command += ["-k", selection] if selection else []
        status = subprocess.run(command, cwd=ROOT, env={**os.environ, NOTED_IN: str(noted)}, check=False).returncode
        return status, read(noted)


def entries_of(ratios: Iterable[Ratio]) -> list[Entry]:
    """Ratios as entries of today, this machine and the commit that is checked out."""
    from torch import __version__ as torch_version

    commit = _git("rev-parse", "--short", "HEAD")
    python = platform.python_version()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {python}, torch {torch_version}"
    day = datetime.now(UTC).date().isoformat()
    return [Entry(commit=commit, date=day, machine=machine, **_rounded(each)) for each in ratios]


def _rounded(ratio: Ratio) -> dict[str, str | float | int]:
    values: dict[str, str | float | int] = asdict(ratio)
    return {**values, **{name: round(getattr(ratio, name), 4) for name in ("middle", "least", "most")}}


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _changes() -> str:
    """What of the working tree is not in its commit; entries that an earlier call has added do not matter."""
    history = HISTORY.relative_to(ROOT).as_posix()
    return _git("status", "--porcelain", "--", "*.py", "pyproject.toml", "constraints.txt", f":(exclude){history}")


def _state() -> tuple[str, str]:
    return _git("rev-parse", "HEAD"), _changes()


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the benchmarks' ratios with the last ones on record.")
    parser.add_argument("--add", action="store_true", help=f"add them to {HISTORY.relative_to(ROOT)}")
    parser.add_argument("-k", dest="selection", metavar="EXPRESSION", help="which benchmarks, as pytest takes it")
    arguments = parser.parse_args()
    if arguments.add and _changes():
        parser.error("--add: the working tree differs from its commit, which the entries would name; commit first")
    known, before = load(HISTORY), _state()
    status, ratios = measure(arguments.selection)
    if status != 0 or not ratios:
        print(f"nothing is compared: the benchmarks ended with status {status} and noted {len(ratios)} figures")
        return 2
    print(table(ratios, known))
    if arguments.add and _state() != before:
        print("nothing is added: the working tree changed while it was measured")
        return 2
    if arguments.add:
        add(HISTORY, entries_of(ratios))
    return int(any(now.name in known and is_worse(now, known[now.name]) for now in ratios))


if __name__ == "__main__":
    sys.exit(main())
