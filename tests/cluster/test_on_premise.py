"""The start script on two stand-ins for machines: a head and a worker start, and stop without a trace."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.local_ray import ROOT, free_ports, own_ray, processes_left, program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

_SCRIPT = ROOT / "cluster" / "start_on_premise.sh"
_SSH = """while [ "$1" = -o ]; do shift 2; done
echo "$1" >> "$HOME/hosts"
shift
printf '%s\\n' "$*" >> "$HOME/commands"
exec setsid sh -c "$*"
"""
_NODES = """import json, ray
ray.init(address="127.0.0.1:{port}", log_to_driver=False, logging_level="ERROR")
print(json.dumps([[node["Alive"], node["Resources"].get("CPU", 0)] for node in ray.nodes()]))"""


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[dict[str, str]]:
    with own_ray(tmp_path / "home") as environment:
        home = Path(environment["HOME"])
        program(home / "bin", "ssh", _SSH)
        checkout = tmp_path / "a folder"
        (checkout / ".venv").mkdir(parents=True)
        (checkout / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
        port, dashboard = free_ports(2)
        environment |= {
            "VISTUNE_DIR": str(checkout),
            "VISTUNE_PORT": str(port),
            "VISTUNE_DASHBOARD_PORT": str(dashboard),
            "VISTUNE_HEAD_IP": "127.0.0.1",
            "VISTUNE_RAY_ARGS": "--num-cpus=2 --object-store-memory=80000000",
        }
        yield environment


def _call(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(_SCRIPT), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)


@pytest.mark.slow
@pytest.mark.ray
def test_a_head_and_a_worker_start_and_stop(machines: dict[str, str]) -> None:
    home, port = Path(machines["HOME"]), machines["VISTUNE_PORT"]
    started = _call(machines, "start", "me@head.lan", "worker-1")
    assert started.returncode == 0, started.stdout + started.stderr
    assert "me@head.lan (head): started\nworker-1: started\n" in started.stdout
    assert f"--address http://127.0.0.1:{machines['VISTUNE_DASHBOARD_PORT']}" in started.stdout

    token = (home / ".ray" / "auth_token").read_text().strip()
    assert token not in (home / "commands").read_text(), "a token in the arguments of ssh, for all to read"
    (of_head,) = (home / ".vistune").glob("*head.lan.token")
    assert of_head.stat().st_mode & 0o077 == 0
    assert not any(token in log.read_text() for log in (home / ".vistune").glob("*.log"))

    with_token = machines | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(of_head)}
    probe = [sys.executable, "-c", _NODES.format(port=port)]
    found = subprocess.run(probe, env=with_token, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(found.stdout.splitlines()[-1]) == [[True, 2.0], [True, 2.0]]

    assert _call(machines, "start", "me@head.lan", "worker-1").stdout.count("runs already") == 2
    assert _call(machines, "status", "me@head.lan", "worker-1").stdout == "me@head.lan: runs\nworker-1: runs\n"
    other = _call(machines | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}, "start", "me@head.lan", "worker-2")
    assert other.returncode != 0 and "runs already, with another token" in other.stderr
    assert of_head.read_text().strip() == token

    stopped = _call(machines, "stop", "me@head.lan", "worker-1")
    assert stopped.stdout == "worker-1: stopped\nme@head.lan: stopped\n", stopped.stderr
    assert processes_left(Path(machines["RAY_TMPDIR"])) == []
    assert not list((home / ".vistune").glob("*.token"))
    after = _call(machines, "status", "me@head.lan", "worker-1")
    assert (after.returncode, after.stdout) == (1, "me@head.lan: stopped\nworker-1: stopped\n")


def test_stop_of_what_never_started_says_so(machines: dict[str, str]) -> None:
    stopped = _call(machines, "stop", "head")
    assert (stopped.returncode, stopped.stdout) == (0, "head: stopped before\n")


def test_a_number_that_is_another_process_by_now_is_left_alone(machines: dict[str, str]) -> None:
    """As after a reboot."""
    state = Path(machines["HOME"]) / ".vistune"
    state.mkdir()
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as other:
        (state / f"ray-{machines['VISTUNE_PORT']}-head.pid").write_text(str(other.pid))
        assert _call(machines, "status", "head").stdout == "head: stopped\n"
        assert _call(machines, "stop", "head").stdout == "head: stopped\n"
        assert other.poll() is None
        other.kill()


def test_a_wrong_call_says_how_to_call(machines: dict[str, str]) -> None:
    for arguments in ([], ["start"], ["restart", "head"]):
        refused = _call(machines, *arguments)
        assert refused.returncode == 2
        assert "cluster/start_on_premise.sh start  HEAD [WORKER...]" in refused.stderr


@pytest.mark.parametrize(
    ("hosts", "address"),
    [("127.0.1.1 STREAM head.lan\n10.1.2.3 STREAM\n10.1.2.3 DGRAM\n", "10.1.2.3"), ("", "head.lan")],
)
def test_a_head_by_its_name_has_the_address_that_others_find(
    machines: dict[str, str], hosts: str, address: str
) -> None:
    """Ray would keep the name, by which no interface is found; known to ssh alone, it stays."""
    home = Path(machines["HOME"])
    program(home / "bin", "ssh", 'printf "%s\\n" "$*" >> "$HOME/commands"\n')
    program(home / "bin", "getent", f"printf {hosts!r}\n")
    del machines["VISTUNE_HEAD_IP"]
    started = _call(machines, "start", "me@head.lan", "worker-1")
    assert started.returncode == 0, started.stderr
    commands = (home / "commands").read_text()
    assert f"--node-ip-address={address} " in commands
    assert f"--address={address}:{machines['VISTUNE_PORT']} " in commands
