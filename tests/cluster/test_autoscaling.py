"""A search on a cluster that grows for it, and shrinks when it is killed: Ray's autoscaler, with nodes here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.local_ray import free_ports, own_ray
from tests.search.cli import wait_until, write_space

pytestmark = [pytest.mark.ray, pytest.mark.slow]

_LIVING = "import ray; ray.init('auto', log_to_driver=False); print(sum(node['Alive'] for node in ray.nodes()))"


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a person on a head without CPUs, beside which up to two nodes may be started."""
    (port,) = free_ports(1)
    config = {
        "cluster_name": "growing",
        "max_workers": 2,
        "idle_timeout_minutes": 0.1,
        "upscaling_speed": 1.0,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": f"127.0.0.1:{port}",
            "use_node_id_as_ip": True,  # they share one
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
        },
    }
    config |= {name: {} for name in ("auth", "docker", "file_mounts")}
    commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    config |= {f"{name}_commands": [] for name in commands} | {"cluster_synced_files": []}
    (tmp_path / "autoscaling.yaml").write_text(json.dumps(config))
    with own_ray(tmp_path / "home") as environment:
        environment |= {"RAY_ADDRESS": f"127.0.0.1:{port}", "RAY_AUTH_MODE": "disabled"}
        command = ["ray", "start", "--head", f"--autoscaling-config={tmp_path / 'autoscaling.yaml'}", "--num-cpus=0"]
        command += [f"--port={port}", "--include-dashboard=false", f"--object-store-memory={100 * 2**20}"]
        command += ["--node-ip-address=127.0.0.1"]
        starts = {**environment, "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
        del starts["RAY_ADDRESS"]
        started = subprocess.run(command, env=starts, capture_output=True, text=True, check=False)
        assert started.returncode == 0, started.stdout + started.stderr
        yield environment


def test_nodes_come_for_a_search_and_go_when_it_is_killed(growing: dict[str, str], tmp_path: Path) -> None:
    def living() -> int:
        asked = subprocess.run([sys.executable, "-c", _LIVING], env=growing, capture_output=True, text=True, check=True)
        return int(asked.stdout)

    space = write_space(tmp_path, scheduler={"max_epochs": 100_000}, budget={"trials": 4})
    command = [sys.executable, "-m", "search.run", str(space), "--name", "a", "--storage-path", str(tmp_path / "runs")]
    with (tmp_path / "out").open("w") as out:
        search = subprocess.Popen(command, env=growing, stdout=out, stderr=out)
    try:
        wait_until(lambda: living() == 3, every_s=1.0)
        log = tmp_path / "runs" / "a" / "logs" / "search.log"
        wait_until(lambda: "the cluster holds 2 worker(s), before " in log.read_text())
        assert "the cluster holds 0 now: waiting for it to grow" in log.read_text()
    finally:
        os.kill(search.pid, signal.SIGKILL)
        search.wait(60)
    wait_until(lambda: living() == 1, every_s=1.0)
