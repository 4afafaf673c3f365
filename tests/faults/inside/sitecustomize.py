"""Comes with Python into every process of the test cluster, and has one fail from within when it is told to."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from pathlib import Path

ORDERS = "VISTUNE_FAULT_ORDERS"  # names the folder in which a file `name_of` a process is an order for it
LEAK, POISON = "leak", "poison"
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
    told = order.read_text()
    while told == LEAK:
        leaked.append(bytearray(os.urandom(1)) * _STEP)  # every page is written
        time.sleep(0.05)
    while told == POISON and not _poison_a_network():
        time.sleep(0.05)


def _poison_a_network() -> bool:
    """Fills the weights of a network that is in training with NaN; whether there was one."""
    import torch

    for each in gc.get_objects():
        if isinstance(each, torch.nn.Module) and each.training and any(True for _ in each.parameters()):
            for weights in each.parameters():
                weights.data.fill_(float("nan"))
            return True
    return False


if ORDERS in os.environ:
    threading.Thread(target=_obey, args=(Path(os.environ[ORDERS]),), daemon=True).start()
