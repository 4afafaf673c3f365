"""Actors without a trial: all are kept, and given up when none waits for them for long, or the search is over."""

from __future__ import annotations

import pytest

from search import free_actors
from search.free_actors import FreeActors


def filled(*actors: str, wanted: int = 0) -> FreeActors:
    cache = FreeActors()
    cache.increase_max("cpu", by=wanted)
    assert all(cache.cache_object("cpu", actor) for actor in actors)
    return cache


def test_all_are_kept_and_given_out_in_order() -> None:
    cache = filled("a", "b", "c")
    assert list(cache.flush_cached_objects()) == []
    assert cache.num_cached_objects == 3
    assert [cache.pop_cached_object("cpu") for _ in range(4)] == ["a", "b", "c", None]
    assert cache.num_cached_objects == 0
    assert not cache.has_cached_object("cpu")


@pytest.mark.parametrize(("wanted", "given_up"), [(0, ["a", "b", "c"]), (2, ["a"]), (3, [])])
def test_after_a_while_only_those_are_kept_that_trials_wait_for(
    wanted: int, given_up: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = filled("a", "b", "c", wanted=wanted)
    monkeypatch.setattr(free_actors, "_KEPT_S", -1.0)
    assert list(cache.flush_cached_objects()) == given_up
    assert cache.num_cached_objects == 3 - len(given_up)


def test_at_the_end_none_is_kept() -> None:
    cache = filled("a", "b", wanted=2)
    assert list(cache.flush_cached_objects(force_all=True)) == ["a", "b"]
    assert cache.num_cached_objects == 0
