"""For how long are slow tests begun? On a machine that takes too long the rest is skipped, and said to be."""

from __future__ import annotations

import os
import time

import pytest

_LIMIT_MIN = float(os.environ.get("VISTUNE_SLOW_MINUTES", "inf"))
_STARTED = time.monotonic()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a slow test once the time for them is over."""
    if item.get_closest_marker("slow") is not None and time.monotonic() - _STARTED > 60 * _LIMIT_MIN:
        pytest.skip(f"slow tests have had their {_LIMIT_MIN:g} minutes (VISTUNE_SLOW_MINUTES)")
