"""A trial that waits for another one's actor requests no placement group, unless it waits long."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import ray
from ray.air.execution import ResourceRequest

from search.late_groups import LateGroups

pytestmark = pytest.mark.ray
ONE_CPU = ResourceRequest([{"CPU": 1}])


@pytest.fixture
def groups() -> Iterator[LateGroups]:
    """Of a cluster that holds one trial, which runs."""
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    groups = LateGroups(slots=lambda: 1)
    groups.request_resources(ONE_CPU)
    ray.get(groups.get_resource_futures(), timeout=30)
    assert groups.acquire_resources(ONE_CPU) is not None
    yield groups
    groups.clear()
    ray.shutdown()


def num_groups() -> int:
    return sum(each["state"] in ("CREATED", "PENDING") for each in ray.util.placement_group_table().values())


def test_a_full_cluster_is_not_asked_for_what_is_cancelled_soon(groups: LateGroups) -> None:
    groups.request_resources(ONE_CPU)
    assert not groups.has_resources_ready(ONE_CPU)
    groups.cancel_resource_request(ONE_CPU)
    time.sleep(1.1)
    assert not groups.has_resources_ready(ONE_CPU)
    assert (groups.get_resource_futures(), num_groups()) == ([], 1)


def test_what_waits_long_is_asked_for(groups: LateGroups) -> None:
    groups.request_resources(ONE_CPU)
    time.sleep(1.1)
    assert not groups.has_resources_ready(ONE_CPU)
    assert (len(groups.get_resource_futures()), num_groups()) == (1, 2)
    groups.cancel_resource_request(ONE_CPU)
    assert groups.get_resource_futures() == []


def test_what_waits_is_asked_for_where_there_is_room_again(groups: LateGroups) -> None:
    groups.request_resources(ONE_CPU)
    (acquired,) = groups._acquired_pgs
    groups.free_resources(groups._resource_cls(placement_group=acquired, resource_request=ONE_CPU))
    deadline = time.monotonic() + 30
    while not groups.has_resources_ready(ONE_CPU):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert groups.acquire_resources(ONE_CPU) is not None
