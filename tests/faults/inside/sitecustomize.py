"""Comes with Python into every process of the test cluster, and has one fail from within when it is told to."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

ORDERS = "VISTUNE_FAULT_ORDERS"  # names the folder in which a file `name_of` a process is an order for it
LEAK = "leak"
_STEP = 32 * 2**20


def name_of(host: str, pid: int) -> str:
    """What orders for a process are named.

    Args:
        pid: its number among the processes of its host.
    """
    return f"{host}-{pid}"


def _obey(orders: Path) -> None:
    order = orders / name_of(socket.gethostname(), os.getpid())
    leaked = []
    while not order.exists():
        time.sleep(0.3)
    if order.read_text() == LEAK:
        while True:
            leaked.append(bytearray(os.urandom(1)) * _STEP)  # every page is written
            time.sleep(0.05)


if ORDERS in os.environ:
    threading.Thread(target=_obey, args=(Path(os.environ[ORDERS]),), daemon=True).start()
