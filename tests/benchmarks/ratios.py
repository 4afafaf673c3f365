"""What did a benchmark measure? Ratios against a baseline of the same run, printed, and noted on request."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Literal

# Environment variable with the file that ratios are added to, a line of JSON each.
NOTED_IN = "VISTUNE_RATIOS"

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Ratio:
    """One figure of a benchmark.

    Attributes:
        name: what was measured against what; the same from commit to commit.
        better: which way this figure improves.
        middle, least, most: median and range over the rounds.
        rounds: how many there were.
    """

    name: str
    better: Better
    middle: float
    least: float
    most: float
    rounds: int

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.least:.2f} to {self.most:.2f})"


def ratio(name: str, rounds: Sequence[float], *, better: Better) -> Ratio:
    """Sums up the ratios of some rounds, and notes them where `NOTED_IN` says a file."""
    found = Ratio(name, better, median(rounds), min(rounds), max(rounds), len(rounds))
    file = os.environ.get(NOTED_IN)
    if file:
        with Path(file).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(asdict(found)) + "\n")
    return found


def read(path: Path) -> list[Ratio]:
    """The ratios that were noted in a file; none where there is none."""
    if not path.exists():
        return []
    return [Ratio(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
