"""What is wrong with the images, all at once? A list of problems as one error."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from trainables.errors import DataError

MAX_LISTED = 20


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the images, and where."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def raise_problems(where: str, problems: Sequence[Problem], *, remedy: str) -> None:
    """Raises one DataError that lists up to 20 problems and counts the rest; does nothing without problems."""
    if not problems:
        return
    lines = [f"  {problem}" for problem in problems[:MAX_LISTED]]
    if len(problems) > MAX_LISTED:
        lines.append(f"  and {len(problems) - MAX_LISTED} more")
    raise DataError(f"{where}: {len(problems)} problem(s) found; {remedy}\n" + "\n".join(lines))


def some_of(names: Collection[str], *, most: int = 5) -> str:
    """The first few names in alphabetical order, and how many more there are."""
    shown = sorted(names)[:most]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")
