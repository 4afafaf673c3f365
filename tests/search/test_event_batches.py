"""Many actors: what is ready together is handled together, and every task's result is heard of once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray
from ray.air.execution import ResourceRequest
from ray.air.execution.resources.placement_group import PlacementGroupResourceManager

from search.event_batches import EventBatches

pytestmark = pytest.mark.ray
NUM_TASKS = 150


class Counter:
    def __init__(self) -> None:
        self._count = 0

    def count(self) -> int:
        self._count += 1
        return self._count

    def fail(self) -> None:
        raise ValueError("no")


@pytest.fixture
def manager() -> Iterator[EventBatches]:
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield EventBatches(resource_manager=PlacementGroupResourceManager())
    ray.shutdown()


def test_tasks_that_are_ready_together_are_heard_of_in_one_step(manager: EventBatches) -> None:
    started: list[str] = []
    actors = [
        manager.add_actor(
            ray.remote(Counter),
            kwargs={},
            resource_request=ResourceRequest([{"CPU": 0.1}]),
            on_start=lambda _: started.append("one"),
        )
        for _ in range(3)
    ]
    while len(started) < 3:
        manager.next(timeout=1)
    heard: list[int] = []
    failed: list[Exception] = []
    for actor in actors[:2]:
        manager.schedule_actor_tasks(
            [actor] * NUM_TASKS, "count", on_result=lambda _, count: heard.append(count), on_error=None
        )
    manager.schedule_actor_task(actors[2], "fail", on_error=lambda _, error: failed.append(error))
    steps = 0
    while len(heard) < 2 * NUM_TASKS:
        assert manager.next(timeout=1) or steps < 1_000
        steps += 1
    assert sorted(heard) == sorted([*range(1, NUM_TASKS + 1)] * 2)
    assert steps < NUM_TASKS
    while not failed:
        manager.next(timeout=1)
    assert "no" in str(failed[0])
    # An actor that goes takes its outstanding tasks with it, whether they are ready or not.
    manager.schedule_actor_tasks([actors[0]] * NUM_TASKS, "count", on_result=lambda *_: heard.append(0))
    manager.remove_actor(actors[0], kill=True)
    manager.next(timeout=1)
    while manager.num_live_actors == 3:
        manager.next(timeout=1)
    manager.cleanup()
