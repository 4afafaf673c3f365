"""What fits on a cluster, counted node by node; a request that never fits is refused with the numbers."""

from __future__ import annotations

import math
import socket
from typing import Any

import pytest

from search.cluster_nodes import Cluster, NodeType, check_fits, worker_resources
from search.cluster_state import ClusterWatch, require_answer
from search.resources_config import ResourcesConfig
from trainables.errors import ConfigError

CPU_HEAD = {"CPU": 4.0, "memory": 8e9}
GPU_NODE = {"CPU": 16.0, "GPU": 4.0, "accelerator_type:A100": 1.0}
T4_NODE = {"CPU": 8.0, "GPU": 1.0, "accelerator_type:T4": 1.0}
MIXED = Cluster([CPU_HEAD, GPU_NODE, T4_NODE, T4_NODE])


@pytest.mark.parametrize(
    ("asked", "slots"),
    [
        ({}, 4 + 16 + 8 + 8),
        ({"cpus_per_worker": 3}, 1 + 5 + 2 + 2),  # what is left over of each node adds up to no worker
        ({"cpus_per_worker": 0.5}, 72),
        ({"gpus_per_worker": 1}, 6),
        ({"gpus_per_worker": 2}, 2),
        ({"gpus_per_worker": 0.25}, 24),
        ({"gpus_per_worker": 0.3}, 3 * 6),  # a share is of one GPU: three fit on each
        ({"gpus_per_worker": 0.1}, 16 + 8 + 8),  # then the CPUs are what there is too little of
        ({"gpus_per_worker": 1, "accelerator": "A100"}, 4),
        ({"gpus_per_worker": 1, "accelerator": "H100"}, 0),
    ],
)
def test_slots_are_counted_node_by_node(asked: dict[str, Any], slots: int) -> None:
    assert MIXED.slots(worker_resources(ResourcesConfig(**asked))) == slots


@pytest.mark.parametrize(
    ("asked", "sizes", "told"),
    [
        (
            {"cpus_per_worker": 32},
            (1,),
            "resources: one trial needs 1 worker of 32 CPU; the largest node has 16 CPU (4 nodes with 36 CPU in all); "
            "lower resources.cpus_per_worker, or give --address of a larger cluster",
        ),
        (
            {"gpus_per_worker": 8},
            (1,),
            "resources: one trial needs 1 worker of 1 CPU and 8 GPU; the largest node has 16 CPU and 4 GPU (4 nodes "
            "with 36 CPU and 6 GPU in all); lower resources.gpus_per_worker, or give --address of a larger cluster",
        ),
        (
            {"gpus_per_worker": 1},
            (1, 8),
            "resources: one trial needs 8 workers of 1 CPU and 1 GPU; the cluster holds 6 of them on 4 nodes; "
            "lower resources.workers to 6 or less, or give --address of a larger cluster",
        ),
        (
            {"gpus_per_worker": 1, "accelerator": "H100"},
            (1,),
            "resources: one trial needs 1 worker of 1 CPU and 1 GPU and H100; no node has that accelerator, found "
            "A100, T4; correct resources.accelerator, or give --address of a larger cluster",
        ),
    ],
)
def test_what_never_fits_is_refused_with_the_numbers(asked: dict[str, Any], sizes: tuple[int, ...], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_fits(ResourcesConfig(**asked), sizes, MIXED)
    assert str(caught.value) == told


def test_what_fits_when_the_cluster_has_grown_waits() -> None:
    cluster = Cluster([CPU_HEAD], growth=[NodeType(GPU_NODE, most=2)])
    told = check_fits(ResourcesConfig(gpus_per_worker=1), (8,), cluster)
    assert told == ("one trial needs 8 workers of 1 CPU and 1 GPU, the cluster holds 0 now: waiting for it to grow")
    with pytest.raises(
        ConfigError, match="when it has grown as far as it may, holds 8 of them on 1 node; lower resour"
    ):
        check_fits(ResourcesConfig(gpus_per_worker=1), (9,), cluster)


def test_there_is_a_limit_to_all_kinds_of_nodes_together() -> None:
    """As `max_workers` at the top of a cluster launcher's file; the node with most room counts first."""
    kinds = [NodeType({"CPU": 2.0}, most=3), NodeType({"CPU": 8.0}, most=2), NodeType({"GPU": 1.0}, most=9)]
    head = {"CPU": 1.0, "node:__internal_head__": 1.0}
    assert Cluster([head], growth=kinds, most_nodes=4).most_slots({"CPU": 1.0}) == 1 + 2 * 8 + 2 * 2
    assert Cluster([head], growth=kinds).most_slots({"CPU": 1.0}) == 1 + 2 * 8 + 3 * 2
    with pytest.raises(ConfigError, match="when it has grown as far as it may, holds 9 of them"):
        check_fits(ResourcesConfig(), (10,), Cluster([head], growth=kinds, most_nodes=1))


def test_kinds_of_nodes_without_a_limit() -> None:
    kinds = [NodeType({"CPU": 2.0}, most=None), NodeType({"CPU": 1.0}, most=None)]
    assert Cluster([], growth=kinds).most_slots({"CPU": 1.0}) == math.inf
    assert Cluster([], growth=kinds, most_nodes=3).most_slots({"CPU": 1.0}) == 6


def test_a_cluster_whose_nodes_all_leave() -> None:
    with pytest.raises(ConfigError, match="no node takes trials: all are being drained, or gone; give --address"):
        check_fits(ResourcesConfig(), (1,), Cluster([]))


def test_an_autoscaler_that_does_not_say_how_far_is_believed() -> None:
    cluster = Cluster([CPU_HEAD], growth=[])
    assert cluster.most_slots({"GPU": 8.0}) == math.inf
    assert check_fits(ResourcesConfig(gpus_per_worker=8), (4,), cluster) is not None
    assert check_fits(ResourcesConfig(cpus_per_worker=4), (1,), cluster) is None


@pytest.mark.parametrize(
    ("asked", "sizes", "slots"),
    [
        ({"gpus_per_worker": 1}, (1,), 24),
        ({"gpus_per_worker": 1}, (2,), 48),
        ({"gpus_per_worker": 1, "max_concurrent_trials": 3}, (1,), 3),
        ({"gpus_per_worker": 1, "trials_per_device": 16, "fused": True}, (1,), 2),  # 16 trials a slot
        ({"gpus_per_worker": 1, "trials_per_device": 16}, (1,), 24),  # each a sixteenth of a GPU
    ],
)
def test_no_more_is_asked_of_an_autoscaler_than_the_trials_left_can_use(
    asked: dict[str, Any], sizes: tuple[int, ...], slots: int
) -> None:
    watch = ClusterWatch(ResourcesConfig(**asked), sizes=sizes, trials_left=lambda: 24, note=lambda _: None)
    assert watch._wanted(Cluster([CPU_HEAD], growth=[NodeType(GPU_NODE, most=100)])) == slots


@pytest.mark.parametrize(("trials_left", "workers"), [(None, 2), (24, 24)])
def test_a_cluster_that_may_grow_without_end_is_asked_to_double(trials_left: int | None, workers: int) -> None:
    resources = ResourcesConfig(gpus_per_worker=1)
    watch = ClusterWatch(resources, sizes=(1,), trials_left=lambda: trials_left, note=lambda _: None)
    assert watch._wanted(Cluster([CPU_HEAD], growth=[NodeType(GPU_NODE, most=None)])) == workers


def test_an_address_at_which_nothing_answers_is_refused_at_once() -> None:
    with pytest.raises(
        ConfigError, match=r"--address \(or \$RAY_ADDRESS\): nothing answers at 127.0.0.1:9 \(.*refused"
    ):
        require_answer("127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"ray://head:10001 is for clients outside of the cluster; .* cluster.submit"):
        require_answer("ray://head:10001")
    with pytest.raises(ConfigError, match=r"http://\*\*\*@head:8265 is a job server's, .* cluster.submit"):
        require_answer("http://me:pass@head:8265")
    require_answer("auto")
    with socket.create_server(("127.0.0.1", 0)) as server:
        require_answer(f"127.0.0.1:{server.getsockname()[1]}")
