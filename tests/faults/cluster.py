"""A Ray cluster of several hosts on one machine: each node has processes, an address and a folder of its own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster.head import plain_environment
from tests.faults.disk import Disk, disk
from tests.faults.hosts import Host, address_outside, network
from tests.faults.images import write_digits
from tests.faults.inside.sitecustomize import ORDERS
from tests.object_server import object_server
from tests.search.cli import wait_until

HEAD, WORKERS, SPARE = "head", ("w1", "w2", "w3"), "w4"
_OBJECT_STORE = str(100 * 2**20)
_GCS_PORT, _DASHBOARD_PORT = 6379, 8265
_RAYLET = "raylet/raylet"
_JOIN_S = 180.0
_MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")

# A node that does not answer is declared dead after about 20 s; Ray's default, made for thousands of nodes, is longer.
_HEALTH = {
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "20",
}


class Cluster:
    """A head and workers with one logical CPU each; the first worker has a logical GPU as well.

    Attributes:
        hosts: by name; the spare one is not part of the cluster until it is started.
        disk: the shared storage.
        store: what has to be in the environment of whoever uses the object store.
        orders: what is written there, processes of the cluster obey (`tests.faults.inside`).
    """

    def __init__(self, folder: Path, hosts: list[Host], storage: Disk, store: Mapping[str, str]) -> None:
        self.folder = folder
        self.store = store
        self.mirrors.mkdir()
        self.hosts = {host.name: host for host in hosts}
        self.disk = storage
        self.token = folder / "token"
        self.token.write_text(secrets.token_hex(16))
        self.token.chmod(0o600)
        self.orders = folder / "orders"
        self.orders.mkdir()
        self._starts: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def head(self) -> Host:
        return self.hosts[HEAD]

    @property
    def address(self) -> str:
        """Of the job server."""
        return f"http://{self.head.address}:{_DASHBOARD_PORT}"

    @property
    def results(self) -> Path:
        return self.disk.folder / "results"

    @property
    def data(self) -> Path:
        """Images in class folders, on the shared storage."""
        return self.disk.folder / "digits"

    @property
    def mirrors(self) -> Path:
        """Where every node has its own copy of what lies in the object store."""
        return self.folder / "mirrors"

    def lose_disk(self, name: str) -> None:
        """What a node has copied is gone."""
        shutil.rmtree(self._own_mirrors(name))

    def _own_mirrors(self, name: str) -> Path:
        own = self.folder / name / "mirrors"
        own.mkdir(parents=True, exist_ok=True)
        return own

    def cache(self, name: str) -> Path:
        """Where a node keeps decoded images."""
        return self.folder / name / "cache"

    def environment(self) -> dict[str, str]:
        """What processes of the cluster and its clients have set."""
        return {
            **plain_environment(self.folder),
            **_HEALTH,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "VISTUNE_RESULTS": str(self.results),
            "VISTUNE_MIRRORS": str(self.mirrors),
            **self.store,
        }

    def start(self, *names: str) -> None:
        """Starts nodes and waits until they are members; the head first, where it is among them."""
        for name in sorted(names, key=lambda name: name != HEAD):
            self._start(name)
            if name == HEAD:
                wait_until(lambda: self._answers(HEAD), timeout_s=_JOIN_S)

        def joined() -> bool:
            for name in names:
                # What the last node of this host has left may be in the way of the next, for a while.
                if self._starts[name].poll() is not None:
                    self._start(name)
            return set(names) <= self.alive()

        wait_until(joined, timeout_s=_JOIN_S, every_s=1.0)

    def alive(self) -> set[str]:
        """Names of the nodes that run and that the head counts as members; empty where there is no head."""
        # A node that has just been killed is a member still, for as long as nobody has noticed.
        return {name for name in self.members() if self.hosts[name].processes(named=_RAYLET)}

    def members(self) -> set[str]:
        """Names of the nodes that the head counts as members."""
        addresses = [node["node_ip"] for node in self.listed("nodes") if node["state"] == "ALIVE"]
        return {host.name for host in self.hosts.values() if host.address in addresses}

    def node_id(self, name: str) -> str:
        nodes = self.listed("nodes")
        address = self.hosts[name].address
        return str(next(node["node_id"] for node in nodes if node["state"] == "ALIVE" and node["node_ip"] == address))

    def listed(self, kind: str) -> list[dict[str, Any]]:
        """What Ray's State API lists: nodes, placement_groups; nothing where the head does not answer."""
        request = urllib.request.Request(
            f"{self.address}/api/v0/{kind}?limit=1000",
            headers={"Authorization": f"Bearer {self.token.read_text()}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                told = json.load(answer)
        except (OSError, ValueError):
            return []
        return list(((told.get("data") or {}).get("result") or {}).get("result") or [])

    def kill(self, *names: str) -> None:
        """All processes of nodes at once, as if their power went."""
        for name in names:
            self.hosts[name].kill()

    def restore(self) -> None:
        """Brings the cluster back to a head and its workers after what a fault has done to it."""
        for host in self.hosts.values():
            host.reconnect()
        if HEAD not in self.alive():
            self.kill(*self.hosts)
        members = self.alive()
        if SPARE in members:
            self.kill(SPARE)
        missing = [name for name in (HEAD, *WORKERS) if name not in members]
        for name in missing:
            self.hosts[name].kill()
        if missing:
            self.start(*missing)
        wait_until(lambda: self.alive() == {HEAD, *WORKERS}, timeout_s=_JOIN_S)

    def run_on(self, name: str, *command: str | Path) -> str:
        """Runs a command on a member's host, as one of its own programs; its output."""
        log = self.folder / "command.log"
        log.unlink(missing_ok=True)
        own = {"RAY_ADDRESS": f"{self.head.address}:{_GCS_PORT}", "RAY_NODE_ID": self.node_id(name)}
        disk = self._own_mirrors(name), self.mirrors
        self.hosts[name].start(command, environment={**self.environment(), **own}, log=log, own=disk).wait(120)
        return log.read_text()

    @contextmanager
    def memory_limit(self, pid: int, *, mib: int) -> Iterator[None]:
        """Lets a process have so much more memory, and no more: then the kernel ends it."""
        group = _MEMORY_GROUPS / f"vistune-faults-{os.getpid()}"
        group.mkdir()
        try:
            (group / "memory.limit_in_bytes").write_text(str(mib * 2**20))
            (group / "cgroup.procs").write_text(str(pid))
            yield
        finally:
            wait_until(lambda: not (group / "cgroup.procs").read_text().strip(), timeout_s=60)
            group.rmdir()

    def _start(self, name: str) -> None:
        host = self.hosts[name]
        place = self.folder / name
        place.mkdir(exist_ok=True)
        options = ["--head", f"--port={_GCS_PORT}", "--include-dashboard=true", f"--dashboard-host={host.address}"]
        if name != HEAD:
            options = [f"--address={self.head.address}:{_GCS_PORT}"]
        options += ["--num-gpus=1"] if name == WORKERS[0] else ["--num-gpus=0"]
        command = [Path(sys.executable).parent / "ray", "start", "--block", "--num-cpus=1", *options]
        command += [f"--node-ip-address={host.address}", f"--node-name={name}", f"--temp-dir={place / 'ray'}"]
        command += [f"--object-store-memory={_OBJECT_STORE}"]
        inside = f"{self.environment()['PYTHONPATH']}{os.pathsep}{Path(__file__).parent / 'inside'}"
        own = {"HOME": str(place), "VISTUNE_CACHE": str(self.cache(name)), "PYTHONPATH": inside}
        environment = {**self.environment(), **own, ORDERS: str(self.orders)}
        disk = self._own_mirrors(name), self.mirrors
        self._starts[name] = host.start(command, environment=environment, log=place / "start.log", own=disk)

    def _answers(self, name: str) -> bool:
        process = self._starts[name]
        assert process.poll() is None, (self.folder / name / "start.log").read_text()
        return bool(self.alive())


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A running cluster, of which nothing is left afterwards."""
    # The path of a socket has to be short.
    with tempfile.TemporaryDirectory(prefix="vf-", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with (
            disk(folder) as storage,
            network([HEAD, *WORKERS, SPARE]) as hosts,
            object_server(folder, address=address_outside(hosts)) as store,
        ):
            storage.folder.joinpath("results").mkdir()
            made = Cluster(folder, hosts, storage, store)
            write_digits(made.data)
            made.start(HEAD, *WORKERS)
            yield made
            # Processes first, whose open files keep the disk.
            for host in made.hosts.values():
                host.kill()
