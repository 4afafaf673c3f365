"""What do the searches of a cluster want of its autoscaler? As long as each of them lives, and no longer."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import ray
from ray._common.constants import HEAD_NODE_RESOURCE_NAME
from ray._private.state import state as ray_state
from ray.autoscaler.sdk import request_resources

_NAME, _NAMESPACE = "node-requests", "vistune"


class NodeRequests:
    """An actor on the head node that asks for the sum of what all searches want.

    Ray keeps one request for a whole cluster, the latest, until another one is made: a search that was killed would
    hold its nodes, and pay for them, for ever; and of two searches each would wipe out what the other one wants.

    Args:
        every_s: how often it looks who is still there, and how long it stays when nobody wants anything.
    """

    def __init__(self, every_s: float = 5.0) -> None:
        self._every_s = every_s
        self._wanted: dict[str, list[dict[str, float]]] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()

    def want(self, job: str, bundle: Mapping[str, float], count: int) -> None:
        """Replaces what a job wants: the resources of a worker, so many times."""
        with self._lock:
            self._wanted[job] = [dict(bundle)] * count
            self._request()

    def _watch(self) -> None:
        while True:
            time.sleep(self._every_s)
            with self._lock:
                living = {job["JobID"] for job in ray_state.job_table() if not job["IsDead"]}
                gone = self._wanted.keys() - living
                for job in gone:
                    del self._wanted[job]
                if gone:
                    self._request()
                if not self._wanted:
                    ray.kill(ray.get_runtime_context().current_actor)

    def _request(self) -> None:
        request_resources(bundles=[bundle for wanted in self._wanted.values() for bundle in wanted])


def want_nodes(bundle: Mapping[str, float], count: int) -> None:
    """Has the autoscaler make room for so many workers, in all, of the search that this process drives.

    It waits for no answer: to be repeated now and then, since the actor may be going at this very moment.
    """
    requests = (
        ray.remote(NodeRequests)
        .options(
            name=_NAME,
            namespace=_NAMESPACE,
            get_if_exists=True,
            lifetime="detached",
            num_cpus=0,
            resources={HEAD_NODE_RESOURCE_NAME: 0.001},
        )
        .remote()
    )
    requests.want.remote(ray.get_runtime_context().get_job_id(), dict(bundle), count)
