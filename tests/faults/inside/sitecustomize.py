"""Comes with Python into every process of the test cluster, and has one fail from within when it is told to."""

from __future__ import annotations

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
    if told == POISON:
        _poison_the_next_network()


def _poison_the_next_network() -> None:
    """Has the next module that trains fill its weights with NaN, in the thread that trains it."""
    import torch

    def poison(module: torch.nn.Module, _given: object, _returned: object) -> None:
        weights = list(module.parameters())
        if module.training and weights:
            handle.remove()
            for each in weights:
                each.data.fill_(float("nan"))

    handle = torch.nn.modules.module.register_module_forward_hook(poison)


if ORDERS in os.environ:
    threading.Thread(target=_obey, args=(Path(os.environ[ORDERS]),), daemon=True).start()
