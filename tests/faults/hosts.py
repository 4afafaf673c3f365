"""Hosts on one machine: network namespaces on a bridge, each with its own name and address; a cable can be pulled."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

NAMESPACES = Path("/run/netns")
_OUTSIDE = 254


@dataclass(frozen=True)
class Host:
    """A network namespace with one interface.

    Attributes:
        namespace: its name; unique on this machine.
        link: the interface on the side of the bridge.
    """

    name: str
    address: str
    namespace: str
    link: str

    def start(
        self, command: Sequence[str | Path], *, environment: Mapping[str, str], log: Path, own: tuple[Path, Path]
    ) -> subprocess.Popen[bytes]:
        """Starts a process that sees this host's network and name only, and its own children.

        Ray takes a head that is gone for running as long as it sees a process that was told its address.

        Args:
            own: a folder, and where the process has it in place of what all others see there: a disk of its own.
        """
        inside = ["nsenter", f"--net={NAMESPACES / self.namespace}", "unshare", "--uts"]
        inside += ["--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "slave", "sh", "-c"]
        inside += ['hostname "$0" && mount --bind "$1" "$2" && shift 2 && exec "$@"', self.name]
        inside += map(str, (*own, *command))
        with log.open("ab") as out:
            return subprocess.Popen(inside, env=dict(environment), stdout=out, stderr=out, start_new_session=True)

    def processes(self, *, named: str = "") -> list[int]:
        """Its processes whose command line contains a text, by age."""
        inode = (NAMESPACES / self.namespace).stat().st_ino
        return [pid for pid, title in _processes_in(inode) if named in title]

    def number_inside(self, pid: int) -> int:
        """The number that one of its processes has for itself."""
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        return int(next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1])

    def titles(self) -> dict[int, str]:
        """Command lines of its processes."""
        return dict(_processes_in((NAMESPACES / self.namespace).stat().st_ino))

    def kill(self) -> None:
        """`kill -9` of all its processes, as when it loses power."""
        while left := self.processes():
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def cut(self) -> None:
        """Pulls its network cable: packets are lost, connections stay open and learn nothing."""
        _ip("link", "set", self.link, "down")

    def reconnect(self) -> None:
        _ip("link", "set", self.link, "up")


def _processes_in(inode: int) -> list[tuple[int, str]]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "ns" / "net").stat().st_ino != inode:
                continue
            title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # ended meanwhile
        if title:  # a zombie has none
            found.append((int(folder.name), title))
    return sorted(found)


@contextmanager
def network(names: Sequence[str]) -> Iterator[list[Host]]:
    """Hosts that reach each other and this machine, and are gone afterwards with all their processes."""
    pid = os.getpid()
    bridge, subnet = f"vtb{pid}", f"10.77.{pid % 250}"
    hosts = [
        Host(name, address=f"{subnet}.{index}", namespace=f"vt{pid}-{name}", link=f"vt{pid}l{index}")
        for index, name in enumerate(names, start=1)
    ]
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("address", "add", f"{subnet}.{_OUTSIDE}/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for host in hosts:
            _add(host, bridge)
        yield hosts
    finally:
        for host in hosts:
            if (NAMESPACES / host.namespace).exists():
                host.kill()
                _ip("netns", "delete", host.namespace)  # its interface goes with it
        subprocess.run(["ip", "link", "delete", bridge], capture_output=True, check=False)


def address_outside(hosts: Sequence[Host]) -> str:
    """At which hosts reach this machine."""
    return f"{hosts[0].address.rpartition('.')[0]}.{_OUTSIDE}"


def _add(host: Host, bridge: str) -> None:
    _ip("netns", "add", host.namespace)
    _ip("link", "add", host.link, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
    _ip("link", "set", host.link, "master", bridge)
    _ip("link", "set", host.link, "up")
    _ip("-n", host.namespace, "link", "set", "lo", "up")
    _ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
    _ip("-n", host.namespace, "link", "set", "eth0", "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def may_have_hosts() -> bool:
    """Whether this machine lets us make networks."""
    name = f"vt{os.getpid()}-try"
    try:
        made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
    if made:
        _ip("netns", "delete", name)
    return made
