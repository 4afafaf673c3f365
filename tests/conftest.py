"""For how long are slow tests begun? On a machine that takes too long the rest is skipped, and said to be.

Their files then come in another order for every commit, so that it is not always the same ones that are left out.
"""

from __future__ import annotations

import hashlib
import math
import os
import time

import pytest

from search.git_commit import git_commit

_LIMIT_MIN = float(os.environ.get("VISTUNE_SLOW_MINUTES", "inf"))
_STARTED = time.monotonic()


@pytest.hookimpl(trylast=True)  # when those that are not to run are out of the list
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives the files of slow tests the commit's order where not all may be run."""
    if math.isfinite(_LIMIT_MIN) and all(_is_slow(item) for item in items):
        commit = git_commit()
        items.sort(key=lambda item: hashlib.sha256(f"{commit} {item.path.name}".encode()).digest())


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a slow test once the time for them is over."""
    if _is_slow(item) and time.monotonic() - _STARTED > 60 * _LIMIT_MIN:
        pytest.skip(f"slow tests have had their {_LIMIT_MIN:g} minutes (VISTUNE_SLOW_MINUTES)")


def _is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None
