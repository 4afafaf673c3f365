"""Which tests run beside each other, and for how long are slow tests begun?

On a machine that takes too long the rest of the slow ones is skipped, and said to be. Their files then come in another
order for every commit, so that it is not always the same ones that are left out.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from search.git_commit import git_commit

_LIMIT_MIN = float(os.environ.get("VISTUNE_SLOW_MINUTES", "inf"))
_STARTED = time.monotonic()


class _OneRayAtATime(LoadScopeScheduling):
    """Files of tests beside each other, those that start Ray one after the other: each takes both cores."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "ray" if "mark.ray" in (self.config.rootpath / file).read_text(encoding="utf-8") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _OneRayAtATime:
    """Of pytest-xdist: how `-n 2` shares the tests out."""
    return _OneRayAtATime(config, log)


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
