"""By which network do the workers of a group talk? By that of Ray, whatever the name of their host stands for."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.torch import TorchConfig

# Of Gloo, the library behind groups of CPU workers. NCCL looks for an interface by itself, and finds one.
_INTERFACE = "GLOO_SOCKET_IFNAME"
_SIOCGIFADDR = 0x8915  # the address of an interface; netdevice(7)


@dataclass
class GroupTorchConfig(TorchConfig):  # type: ignore[misc]
    """Sets up a process group over the interface that has the node's address in the cluster.

    Gloo listens where the name of its host leads. On many machines that is the loopback (Debian writes 127.0.1.1 into
    /etc/hosts), and then no worker reaches one on another node.
    """

    @property
    def backend_cls(self) -> Any:
        return _GroupBackend


class _GroupBackend(TorchConfig().backend_cls):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(use_interface_of_ray)
        super().on_start(worker_group, backend_config)


def use_interface_of_ray() -> None:
    """In a worker: has Gloo use the interface that Ray uses, unless a person has chosen another."""
    interface = interface_of(ray.util.get_node_ip_address())
    if interface is not None:
        os.environ.setdefault(_INTERFACE, interface)


def interface_of(address: str) -> str | None:
    """Name of the interface with an IPv4 address; None where there is none, or the system does not tell."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            try:
                told = fcntl.ioctl(any_socket.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # it has no IPv4 address
            if socket.inet_ntoa(told[20:24]) == address:
                return name
    return None
