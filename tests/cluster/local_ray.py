"""Stand-ins for other machines: programs on the PATH that run here what was to run there, on ports of their own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def program(folder: Path, name: str, text: str) -> None:
    """An executable shell script."""
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{text}", encoding="utf-8")
    path.chmod(0o755)


@contextmanager
def own_ray(home: Path) -> Iterator[dict[str, str]]:
    """An environment for clusters that share nothing with any other; afterwards no process of them is left.

    Its first program folder is `bin/` of the home, for stand-ins.
    """
    programs = home / "bin"
    programs.mkdir(parents=True)
    # pytest's own folders are too long for the paths of sockets.
    temporary = Path(tempfile.mkdtemp(prefix="vr-"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "VISTUNE_"))}
    environment |= {
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "RAY_TMPDIR": str(temporary),
        "VISTUNE_RAY_TMPDIR": str(temporary),
        "VISTUNE_CACHE": os.environ.get("VISTUNE_CACHE", str(home / "cache")),
    }
    try:
        yield environment
    finally:
        left = list(_processes_of(temporary))
        subprocess.run(["kill", "-9", *left], check=False) if left else None
        shutil.rmtree(temporary, ignore_errors=True)


def processes_left(temporary: Path, *, within_s: float = 15.0) -> list[str]:
    """Command lines of processes of a Ray that have not ended within so many seconds."""
    until = time.monotonic() + within_s
    while (left := _processes_of(temporary)) and time.monotonic() < until:
        time.sleep(0.2)
    return list(left.values())


def _processes_of(temporary: Path) -> dict[str, str]:
    """Number and command line of those that name the temporary folder of a Ray in their arguments or environment."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:
            continue  # ended meanwhile, or another user's
        if str(temporary).encode() in command + environment and int(folder.name) != os.getpid():
            found[folder.name] = command.replace(b"\0", b" ").decode(errors="replace")
    return found
