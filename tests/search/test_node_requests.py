"""What searches want of an autoscaler, in a real Ray: kept while they live, added up, and forgotten with them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import ray
from ray.autoscaler._private.constants import AUTOSCALER_RESOURCE_REQUEST_CHANNEL
from ray.experimental.internal_kv import _internal_kv_get

from search import node_requests
from search.node_requests import NodeRequests, want_nodes
from search.tuner import start_ray
from tests.search.cli import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    start_ray()
    yield
    ray.shutdown()


def wanted() -> list[dict[str, float]] | None:
    text = _internal_kv_get(AUTOSCALER_RESOURCE_REQUEST_CHANNEL)
    return None if text is None else json.loads(text)


def test_what_is_wanted_ends_with_who_wants_it() -> None:
    requests = ray.remote(num_cpus=0)(NodeRequests).remote(every_s=1.0)
    own = ray.get_runtime_context().get_job_id()
    ray.get(requests.want.remote(own, {"GPU": 1.0}, 2))
    ray.get(requests.want.remote("a killed search", {"CPU": 4.0}, 1))
    assert wanted() == [{"GPU": 1.0}, {"GPU": 1.0}, {"CPU": 4.0}]
    wait_until(lambda: wanted() == [{"GPU": 1.0}, {"GPU": 1.0}])
    ray.get(requests.want.remote(own, {"GPU": 1.0}, 1))
    assert wanted() == [{"GPU": 1.0}]
    ray.kill(requests)


def test_the_actor_goes_when_nobody_is_left() -> None:
    requests = ray.remote(num_cpus=0)(NodeRequests).remote(every_s=1.0)
    ray.get(requests.want.remote("a killed search", {"CPU": 4.0}, 1))
    with pytest.raises(ray.exceptions.RayActorError):
        while True:
            ray.get(requests.want.remote("a killed search", {"CPU": 4.0}, 1), timeout=60)
            wait_until(lambda: wanted() == [])


def test_a_search_wants_nodes_through_one_actor_of_the_cluster() -> None:
    want_nodes({"GPU": 2.0}, 3)
    wait_until(lambda: wanted() == [{"GPU": 2.0}] * 3)
    kept = ray.get_actor(node_requests._NAME, namespace=node_requests._NAMESPACE)
    want_nodes({"GPU": 2.0}, 0)
    wait_until(lambda: wanted() == [])
    assert ray.get_actor(node_requests._NAME, namespace=node_requests._NAMESPACE) == kept
