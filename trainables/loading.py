"""Are decoded images kept, or decoded anew in every epoch? By what the memory and the disk of this node hold."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Loading = Literal["memory", "stream"]
# A disk that is filled to the brim fails others; and blocks are lost to the file system itself.
_USABLE_DISK = 0.98


@dataclass(frozen=True)
class Choice:
    """How images are loaded, and why, as part of a sentence."""

    loading: Loading
    reason: str


def choose_loading(
    wanted: Literal["auto", "memory", "stream"], *, needed: int, memory: int, disk: int | None
) -> Choice:
    """Whether decoded images are kept.

    Args:
        wanted: what `task.data.loading` says.
        needed: bytes of all decoded images.
        memory: bytes of the node's memory.
        disk: bytes free where they would be kept; None where they are kept already.
    """
    if wanted != "auto":
        return Choice(wanted, f"task.data.loading is {wanted}")
    decoded = f"the decoded images ({gib(needed)} GiB)"
    if needed > memory / 2:
        return Choice("stream", f"{decoded} exceed half of the memory ({gib(memory)} GiB)")
    if disk is not None and not fits_on_disk(needed, disk):
        return Choice("stream", f"{decoded} exceed the free disk of the cache ({gib(disk)} GiB)")
    return Choice("memory", f"{decoded} fit into half of the memory ({gib(memory)} GiB)")


def fits_on_disk(needed: int, disk: int) -> bool:
    """Whether a file of so many bytes may be written onto a disk with so many free."""
    return needed + 2**20 <= disk * _USABLE_DISK


def free_disk(folder: Path) -> int:
    """Bytes free on the disk of a folder."""
    return shutil.disk_usage(folder).free


def node_memory(*, proc: Path = Path("/proc/self/cgroup"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of physical memory, or what a container or batch system allows this process of it.

    Args:
        proc: where the kernel says which control group this process is in.
        cgroups: where control groups are mounted.

    Source: Documentation/admin-guide/cgroup-v2.rst of Linux, "memory.max"; cgroup-v1/memory.rst.
    """
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *(limit for file in _limit_files(proc, cgroups) if (limit := _read_limit(file)))])


def gib(count: int) -> str:
    """Bytes in GiB to two digits after the point."""
    return f"{count / 2**30:,.2f}"


def _limit_files(proc: Path, cgroups: Path) -> list[Path]:
    """The limits of this process's control group and of all above it, each of which holds."""
    try:
        lines = proc.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []  # not Linux
    files = []
    for line in lines:
        _, controllers, group = line.split(":", maxsplit=2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount, name = (cgroups / "memory", "memory.limit_in_bytes") if controllers else (cgroups, "memory.max")
        folder = mount / group.lstrip("/")
        files += [each / name for each in (folder, *folder.parents) if each.is_relative_to(mount)]
    return files


def _read_limit(file: Path) -> int | None:
    try:
        text = file.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max" is no limit
