"""What does the Ray cluster consist of at this moment, and may it grow? Only here is Ray asked about its nodes."""

from __future__ import annotations

import json
import logging
import math
import re
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import ray
import yaml
from ray._private.state import state as ray_state
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.experimental.internal_kv import _internal_kv_get
from ray.util import placement_group_table
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.cluster_nodes import Cluster, NodeType, check_fits, worker_resources
from search.node_requests import want_nodes
from search.redaction import redacted
from search.resources_config import ResourcesConfig
from trainables.errors import ConfigError

_log = logging.getLogger(__name__)

# Where an autoscaler says what it does. Without one Ray's monitor writes it too, each node then being its own type.
_STATUS = "__autoscaling_status"
# To connect, where a firewall swallows what is sent.
_ANSWER_S = 10.0
_NODE = re.compile(r"Node Id: ([0-9a-f]{8,})")
_OWN_TYPE = re.compile(r"(node|local)_[0-9a-f]+")


# Nodes that this process has ever seen leave; a number is never given again.
_seen_leaving: set[str] = set()


def leaving_nodes() -> set[str]:
    """Numbers of the nodes of which Ray has been told that they go, and which are still there."""
    leaving = set(ray_state.get_draining_nodes())
    _seen_leaving.update(leaving)
    return leaving


def have_left(nodes: Iterable[str]) -> bool:
    """Whether one of these nodes has been told to leave, as far as this process has looked.

    Ray itself calls a node taken back only once the time of its notice is over; many go before.
    """
    return not _seen_leaving.isdisjoint(nodes)


def was_taken_back(text: str) -> bool:
    """Whether an error of Ray names a node that had been told to leave."""
    return have_left(_NODE.findall(text))


def require_answer(address: str) -> None:
    """Refuses what is no address of a head, or one at which nothing listens: Ray itself would try for minutes.

    Args:
        address: HOST:PORT, or a word that Ray knows, which is not looked at.

    Raises:
        ConfigError: naming the address.
    """
    scheme, _, place = address.rpartition("://")
    if scheme in ("http", "https"):
        raise ConfigError(
            f"--address: {redacted(address)} is a job server's, to which python -m cluster.submit sends a search; "
            "give HOST:PORT of a Ray head, most often port 6379"
        )
    if scheme == "ray":  # the driver of a search works on a node of the cluster
        raise ConfigError(
            f"--address: {redacted(address)} is for clients outside of the cluster; give HOST:PORT of the head on one "
            "of its machines, or send the search there with python -m cluster.submit"
        )
    host, _, port = place.rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--address (or $RAY_ADDRESS): nothing answers at {redacted(address)} ({error}); start Ray there, or give "
            "HOST:PORT of a Ray head"
        ) from error


def read_cluster() -> Cluster:
    """The nodes that take trials now, those that are being drained left out, and what may be started besides."""
    growth, most_nodes = _growth()
    return Cluster(nodes=[node["Resources"] for node in staying_nodes()], growth=growth, most_nodes=most_nodes)


def staying_nodes() -> list[dict[str, Any]]:
    """The living nodes, as Ray tells of them, without those that are being drained, which take nothing new."""
    leaving = leaving_nodes()
    return [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in leaving]


def start_here(actor: type, *arguments: Any) -> Any:
    """An actor without any resources on this node: Ray would place it on any, and it would be lost with that."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(actor).options(num_cpus=0, scheduling_strategy=here).remote(*arguments)


class WaitingGroups:
    """Whether some workers wait for resources; Ray is asked at most every `EVERY_S` seconds."""

    EVERY_S = 2.0

    def __init__(self) -> None:
        self._asked_at: float | None = None
        self._wait = False

    def __call__(self) -> bool:
        now = time.monotonic()
        if self._asked_at is None or now - self._asked_at > self.EVERY_S:
            states = {group["state"] for group in placement_group_table().values()}
            self._wait = not states.isdisjoint(("PENDING", "PREPARED", "RESCHEDULING"))
            self._asked_at = now
        return self._wait


def _growth() -> tuple[list[NodeType] | None, int | None]:
    """`Cluster.growth` and `Cluster.most_nodes`."""
    told = ray_state.get_cluster_config()
    if told is not None and told.node_group_configs:
        return [
            NodeType(dict(group.resources), most=None if group.max_count < 0 else int(group.max_count))
            for group in told.node_group_configs
        ], None
    text = _internal_kv_get(_STATUS)
    status: dict[str, Any] = json.loads(text) if text else {}
    report = status.get("autoscaler_report") or {}
    types = {*(report.get("node_type_mapping") or {}).values(), *(report.get("active_nodes") or {})}
    if all(_OWN_TYPE.fullmatch(name) for name in types):
        return ([] if is_autoscaler_v2(fetch_from_server=True) else None), None
    return _configured_growth(status.get("monitor_pid"))


def _configured_growth(monitor_pid: int | None) -> tuple[list[NodeType], int | None]:
    """What the autoscaler's configuration says, which lies on the head node only; nothing on any other."""
    try:
        arguments = Path(f"/proc/{monitor_pid}/cmdline").read_text().split("\0")
        prefix = "--autoscaling-config="
        path = next(each.removeprefix(prefix) for each in arguments if each.startswith(prefix))
        config = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
        of_all = int(config["max_workers"])  # nodes besides the head
        kinds = [
            NodeType(dict(kind["resources"]), most=int(kind.get("max_workers", of_all)))
            for name, kind in config["available_node_types"].items()
            if name != config.get("head_node_type")
        ]
    except (OSError, StopIteration, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError):
        return [], None
    return kinds, of_all


class ClusterWatch:
    """Follows a cluster while it grows and shrinks, asks an autoscaler for nodes, and says what it waits for.

    Ray is asked at most every `EVERY_S` seconds; an autoscaler is told anew after `REPEATED_S` seconds.

    Args:
        sizes: numbers of workers that a trial may have.
        trials_left: how many trials are still to end; None where there is no limit.
        note: shows a person what is waited for; an empty text when it has come.
    """

    EVERY_S = 2.0
    REPEATED_S = 60.0

    def __init__(
        self,
        resources: ResourcesConfig,
        *,
        sizes: Sequence[int],
        trials_left: Callable[[], int | None],
        note: Callable[[str], None],
    ) -> None:
        self._resources = resources
        self._sizes = tuple(sizes)
        self._needs = worker_resources(resources)
        self._trials_left = trials_left
        self._note = note
        self._read_at: float | None = None
        self._slots = 0
        self._waits_for: str | None = None
        self._requested = 0
        self._requested_at = 0.0

    def slots(self) -> int:
        """How many workers the cluster holds."""
        if self._read_at is None or time.monotonic() - self._read_at > self.EVERY_S:
            self._read()
        return self._slots

    def close(self) -> None:
        """Lets an autoscaler take back what was asked for."""
        if self._requested:
            want_nodes(self._needs, 0)

    def _read(self) -> None:
        cluster = read_cluster()
        slots = cluster.slots(self._needs)
        if self._read_at is not None and slots != self._slots:
            _log.warning("the cluster holds %d worker(s), before %d", slots, self._slots)
        self._slots, self._read_at = slots, time.monotonic()
        self._say(_lacking(self._resources, self._sizes, cluster))
        if cluster.growth is not None:
            self._request(self._wanted(cluster))

    def _say(self, waits_for: str | None) -> None:
        if waits_for != self._waits_for:
            self._waits_for = waits_for
            self._note(waits_for or "")
            if waits_for is not None:
                _log.warning("%s", waits_for)

    def _wanted(self, cluster: Cluster) -> int:
        """Workers that the search could make use of, and that the cluster may come to hold."""
        limits = [self._trials_left(), self._resources.max_concurrent_trials]
        trials = min((limit for limit in limits if limit is not None), default=None)
        if trials is not None:
            trials = math.ceil(trials / self._resources.trials_at_a_slot)
        most = cluster.most_slots(self._needs)
        if not cluster.growth or (trials is None and math.isinf(most)):
            most = 2.0 * max(self._slots, *self._sizes)  # nobody says how far it may grow: it doubles
        return int(most if trials is None else min(most, trials * max(self._sizes)))

    def _request(self, workers: int) -> None:
        # An autoscaler sees what waits in Ray, which is one trial at a time: it would add node after node.
        now = time.monotonic()
        if workers != self._requested or (workers and now - self._requested_at > self.REPEATED_S):
            want_nodes(self._needs, workers)
            self._requested, self._requested_at = workers, now


def _lacking(resources: ResourcesConfig, sizes: Sequence[int], cluster: Cluster) -> str | None:
    """What trials wait for; a cluster that has become too small may become larger again."""
    try:
        return check_fits(resources, sizes, cluster)
    except ConfigError as error:
        return f"waiting for nodes; {error}"
