"""TensorBoard over a run while it is searched: a process of its own, reachable from this machine only."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

_START_S = 60.0
_END_S = 5.0
_CHECK_PARENT_S = 1.0


def command_for(folder: str) -> str:
    """What a person types to see the curves of a run, at any time."""
    return f"tensorboard --logdir {quote(f'{folder}/trials')}"


def tunnel_to(port: int) -> str:
    """What a person types elsewhere to reach a port of this machine's loopback."""
    return f"ssh -N -L {port}:127.0.0.1:{port} {socket.gethostname()}"


@contextmanager
def tensorboard(folder: Path) -> Iterator[int | None]:
    """Serves the event files below a folder on a free port of the loopback, until the block is left.

    Yields:
        The port; None where TensorBoard did not start, which is no reason not to search.
    """
    command = [sys.executable, "-m", "search.tensorboard", str(folder), str(os.getpid())]
    # A session of its own: Ctrl-C in the terminal ends the search, which then ends this.
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        yield _port_of(server)
    finally:
        server.terminate()
        try:
            server.wait(_END_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        if server.stdout is not None:
            server.stdout.close()


def _port_of(server: subprocess.Popen[bytes]) -> int | None:
    assert server.stdout is not None
    ready, _, _ = select.select([server.stdout], [], [], _START_S)
    told = server.stdout.readline() if ready else b""
    return int(told) if told.strip().isdigit() else None


def _serve(folder: str, parent: int) -> None:
    """Serves until the parent is gone, however it went."""
    from urllib.parse import urlsplit

    from tensorboard import program

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what TensorBoard prints is not the port
    server = program.TensorBoard()
    server.configure(argv=["tensorboard", "--logdir", folder, "--host", "127.0.0.1", "--port", "0"])
    out.write(f"{urlsplit(server.launch()).port}\n")
    out.flush()
    while os.getppid() == parent:
        time.sleep(_CHECK_PARENT_S)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
