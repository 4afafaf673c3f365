"""The batch script against stand-ins for SLURM's programs: a real Ray cluster, a real search, a real signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from tests.cluster.local_ray import ROOT, free_ports, own_ray, processes_left, program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

_SPACE = """task: {data: {name: digits}}
space: {arch: small_cnn, lr: {type: float, low: 1e-4, high: 1e-2, log: true}, batch_size: 64}
scheduler: {max_epochs: 2}
budget: {trials: 500}
"""
# Like the real one it passes on a signal, and starts as many as asked for.
_SRUN = """echo "$*" >> "$HOME/srun"
tasks=1
while [[ $1 = -* ]]; do
  [[ $1 != --ntasks=* ]] || tasks=${1#*=}
  shift
done
# As on Debian: by its own name a machine has a loopback address.
if [[ "$*" = *hostname* ]]; then echo "127.0.1.1 fe80::7"; echo "$OWN_ADDRESS 10.0.0.7"; exit; fi
pids=()
trap 'kill -TERM "${pids[@]}"' TERM
for ((i = 0; i < tasks; i++)); do "$@" & pids+=($!); done
for pid in "${pids[@]}"; do wait "$pid"; while kill -0 "$pid" 2> /dev/null; do wait "$pid"; done; done
"""
_SCONTROL = """echo "$*" >> "$HOME/scontrol"
[[ $1 != show ]] || printf 'node1\\nnode2\\n'
"""


@pytest.fixture
def job(tmp_path: Path) -> Iterator[dict[str, str]]:
    with own_ray(tmp_path / "home") as environment:
        home = Path(environment["HOME"])
        program(home / "bin", "srun", _SRUN)
        program(home / "bin", "scontrol", _SCONTROL)
        program(home / "bin", "squeue", 'echo "$JOB_STATE"\n')
        (tmp_path / "space.yaml").write_text(_SPACE)
        yield environment | {
            "SLURM_SUBMIT_DIR": str(ROOT),
            "SLURM_JOB_ID": str(os.getpid() % 10_000),
            "JOB_STATE": "RUNNING",
            "OWN_ADDRESS": ray.util.get_node_ip_address(),
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_CPUS_PER_TASK": "1",
            "VISTUNE_VENV": "",
            "VISTUNE_RESULTS": str(tmp_path / "results"),
            "VISTUNE_DASHBOARD_PORT": str(free_ports(1)[0]),
        }


def _until_epochs(study: Path, process: subprocess.Popen[str], *, timeout_s: float) -> None:
    until = time.monotonic() + timeout_s
    while not (study.is_file() and '"intermediate_value"' in study.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "no epoch has ended"
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.skipif(ray.util.get_node_ip_address().startswith("127."), reason="no address but the loopback")
@pytest.mark.parametrize(
    ("told", "state", "again"),
    [
        pytest.param(signal.SIGUSR1, "RUNNING", True, id="time-limit"),  # what --signal=B:USR1@180 asks for
        pytest.param(signal.SIGTERM, "RUNNING", True, id="preempted"),
        pytest.param(signal.SIGTERM, "COMPLETING", False, id="cancelled"),
    ],
)
def test_a_job_that_is_to_end_saves_and_is_queued_again_unless_it_was_cancelled(
    job: dict[str, str], tmp_path: Path, told: signal.Signals, state: str, *, again: bool
) -> None:
    job["JOB_STATE"] = state
    home, run = Path(job["HOME"]), tmp_path / "results" / "first"
    script = ["bash", str(ROOT / "cluster" / "slurm.sh"), str(tmp_path / "space.yaml"), "first"]
    process = subprocess.Popen(script, env=job, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        _until_epochs(run / "study.log", process, timeout_s=150)
        process.send_signal(told)
        output, _ = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 130, output
    assert "the job is to end; the search saves what it has" in output
    asked = f"requeue {job['SLURM_JOB_ID']}" in (home / "scontrol").read_text().splitlines()
    assert asked is again
    steps = (home / "srun").read_text().splitlines()
    # Both are started in the background: which of them writes first is chance.
    kinds = sorted(("--head" in step, "--exclude=node1" in step) for step in steps[1:])
    assert kinds == [(False, True), (True, False)]
    assert processes_left(Path(job["RAY_TMPDIR"])) == [], output
    assert '"state": "interrupted"' in (run / "summary.json").read_text()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.skipif(ray.util.get_node_ip_address().startswith("127."), reason="no address but the loopback")
def test_a_job_that_is_to_end_before_the_search_has_begun_is_queued_again(job: dict[str, str], tmp_path: Path) -> None:
    """As where images have to be read first, which may take longer than a job is let."""
    script = ["bash", str(ROOT / "cluster" / "slurm.sh"), str(tmp_path / "space.yaml"), "first"]
    process = subprocess.Popen(script, env=job, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        until = time.monotonic() + 150
        while not _drivers(tmp_path):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGUSR1)
        output, _ = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode in (130, 143), output
    assert f"requeue {job['SLURM_JOB_ID']}" in (Path(job["HOME"]) / "scontrol").read_text().splitlines()
    assert not (tmp_path / "results" / "first" / "study.log").exists()
    assert processes_left(Path(job["RAY_TMPDIR"])) == [], output


def _drivers(folder: Path) -> list[Path]:
    """Processes of searches whose space lies in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_text().split("\0")
        except OSError:
            continue
        if "search.run" in command and str(folder / "space.yaml") in command:
            found.append(path)
    return found


_PYTHON = """printf '%s\\n' "$@" > "$HOME/called"
exit 130
"""


def _called(job: dict[str, str], *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """The script with a stand-in for Python; what that was called with."""
    program(Path(job["HOME"]) / "bin", "python", _PYTHON)
    command = ["bash", str(ROOT / "cluster" / "run_or_resume.sh"), *arguments]
    ended = subprocess.run(command, env=job, capture_output=True, text=True, timeout=30, check=False)
    called = Path(job["HOME"]) / "called"
    return ended, called.read_text().splitlines() if called.is_file() else []


def test_the_search_starts_or_goes_on(job: dict[str, str], tmp_path: Path) -> None:
    results = str(tmp_path / "the results")
    ended, called = _called(job, "spaces/x.yaml", "first", results, "--address", "h:1", "-o", "space.lr=0.1")
    assert ended.returncode == 130, "the exit status is that of the search"
    named = ["spaces/x.yaml", "--name", "first", "--storage-path", results]
    assert called == ["-m", "search.run", *named, "--or-resume", "--address", "h:1", "-o", "space.lr=0.1"]


@pytest.mark.parametrize("script", ["slurm.sh", "run_or_resume.sh"])
def test_a_wrong_call_says_how_to_call(job: dict[str, str], script: str) -> None:
    command = ["bash", str(ROOT / "cluster" / script), "x.yaml"]
    refused = subprocess.run(command, env=job, capture_output=True, text=True, timeout=30, check=False)
    assert refused.returncode == 2
    assert "SPACE.yaml NAME" in refused.stderr
