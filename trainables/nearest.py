"""Which valid name did the person probably mean?"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, options: Iterable[str], *, count: int = 3) -> list[str]:
    """The valid names most like a mistyped one, best first; none when nothing is alike."""
    by_lower = {option.lower(): option for option in options}
    return [by_lower[match] for match in get_close_matches(name.lower(), by_lower, n=count, cutoff=0.6)]
