"""Ray as a search starts it on this machine."""

from __future__ import annotations

import os

import pytest

pytestmark = pytest.mark.ray


@pytest.mark.parametrize(("wanted", "found"), [(None, 5), ("0", 0)])
def test_trials_have_their_share_of_a_busy_machine(
    monkeypatch: pytest.MonkeyPatch, wanted: str | None, found: int
) -> None:
    import ray

    from search.tuner import start_ray

    monkeypatch.setenv("RAY_worker_niceness", wanted or "")
    if wanted is None:
        monkeypatch.delenv("RAY_worker_niceness")
    start_ray()
    try:
        assert ray.get(ray.remote(lambda: os.nice(0)).remote()) == os.nice(0) + found
    finally:
        ray.shutdown()
