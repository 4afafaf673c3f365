"""Waiting for a cluster ends in time, also where somebody listens and says nothing."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest


@pytest.mark.ray
def test_a_head_that_does_not_answer_is_not_waited_for_longer_than_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-m", "cluster.wait_for_nodes", "2", "--address", address, "--timeout", "2"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1
    assert f"{address}: 0 of 2 nodes joined within 2 s (the head does not answer)" in done.stderr
