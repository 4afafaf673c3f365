"""A Ray head and nodes for tests: with dashboard and token, on ports and in folders of their own, ended by process."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.search.cli import wait_until

ROOT = Path(__file__).parents[2]
_MEMORY = str(100 * 2**20)


@dataclass(frozen=True)
class Head:
    """A running head.

    Attributes:
        address: of its job server.
        gcs: for drivers and nodes that join.
        home: the home of its processes, in which runs lie by default.
        token: file with its token.
    """

    address: str
    gcs: str
    home: Path
    token: Path

    def environment(self) -> dict[str, str]:
        """What a person who has the token needs to have set."""
        return {**plain_environment(self.home.parent), "RAY_AUTH_TOKEN_PATH": str(self.token)}


def plain_environment(home: Path) -> dict[str, str]:
    """An environment that knows of no cluster and has no token, with the code under test first on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return {**kept, "HOME": str(home), "PATH": path, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}


@contextmanager
def running_head() -> Iterator[Head]:
    """Starts a head with two logical CPUs and ends it."""
    # The path of a socket has to be short.
    with tempfile.TemporaryDirectory(prefix="vt-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        head_port, dashboard, client, agent, grpc, runtime_env = _free_ports(6)
        home = root / "home"
        home.mkdir()
        token = root / "token"
        token.write_text(secrets.token_hex(16))
        token.chmod(0o600)
        head = Head(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{head_port}", home, token)
        ports = {
            "port": head_port,
            "dashboard-port": dashboard,
            "ray-client-server-port": client,
            "dashboard-agent-listen-port": agent,
            "dashboard-agent-grpc-port": grpc,
            "runtime-env-agent-port": runtime_env,
        }
        options = [f"--{name}={port}" for name, port in ports.items()]
        options += ["--head", "--include-dashboard=true", "--num-cpus=2", f"--temp-dir={root / 'ray'}"]
        with _started(options, head, log=root / "head.log"):
            yield head


@contextmanager
def running_node(head: Head, *, hides: Path) -> Iterator[None]:
    """A node of the same cluster on which a folder is another, empty one; needs the right to mount."""
    options = [f"--address={head.gcs}", "--num-cpus=1", "--dashboard-agent-listen-port=0"]
    before = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(hides)]
    with _started(options, head, log=head.home.parent / "node.log", before=before):
        yield


def may_hide() -> bool:
    """Whether this machine lets a process see other file systems than the rest."""
    if shutil.which("unshare") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        command = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", folder]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextmanager
def _started(options: Sequence[str], head: Head, *, log: Path, before: Sequence[str] = ()) -> Iterator[None]:
    ray = Path(sys.executable).parent / "ray"
    command = [*before, str(ray), "start", "--block", f"--object-store-memory={_MEMORY}", *options]
    command += ["--min-worker-port=0", "--max-worker-port=0"]
    environment: Mapping[str, str] = {
        **head.environment(),
        "HOME": str(head.home),
        "RAY_AUTH_MODE": "token",
        "VISTUNE_CACHE": str(log.with_suffix(".cache")),
    }
    with log.open("w") as out:
        process = subprocess.Popen(command, env=environment, cwd=head.home, stdout=out, stderr=out)
    try:
        wait_until(lambda: "block forever" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()  # it ends all that it has started
        process.wait(60)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        with closing(each):
            pass
    return ports
