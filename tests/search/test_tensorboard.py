"""TensorBoard beside a search: reachable from this machine only, and gone with it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from search.tensorboard import tensorboard, tunnel_to
from tests.search.cli import wait_until

_DRIVER = """
import os, sys, signal
from pathlib import Path
from search.tensorboard import tensorboard
with tensorboard(Path(sys.argv[1])) as port:
    print(port, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/data/runs", timeout=10) as page:
            return page.status == 200
    except (urllib.error.URLError, ConnectionError):
        return False


def test_it_serves_while_the_block_lasts(tmp_path: Path) -> None:
    with tensorboard(tmp_path) as port:
        assert port is not None
        assert answers(port)
        listening = Path("/proc/net/tcp").read_text().splitlines()
        addresses = {row.split()[1] for row in listening if row.split()[1].endswith(f":{port:04X}")}
        assert "00000000" not in {address.split(":")[0] for address in addresses}  # not on all interfaces
        assert f"-L {port}:127.0.0.1:{port}" in tunnel_to(port)
    assert not answers(port)


def test_it_ends_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    driver = subprocess.Popen([sys.executable, "-c", _DRIVER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    out, _ = driver.communicate(timeout=120)
    assert driver.returncode == -signal.SIGKILL
    wait_until(lambda: not answers(int(out)))


def test_a_search_goes_on_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with tensorboard(tmp_path) as port:
        assert port is None
