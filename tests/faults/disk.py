"""A disk of its own for the results: an ext4 file system in a file, which can be full, hang, be slow or break."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.search.cli import wait_until

MIB = 2**20


class Disk:
    """A mounted file system, the shared storage of all hosts.

    Args:
        image: the file that holds it.
        folder: where it is mounted.
    """

    def __init__(self, image: Path, folder: Path, *, mib: int = 256) -> None:
        self._image = image
        self.folder = folder
        folder.mkdir(parents=True)
        with image.open("wb") as file:
            file.truncate(mib * MIB)
        _run("mkfs.ext4", "-q", "-m", "0", image)
        self._mount()

    def fill(self) -> None:
        """Leaves no room: further writes fail with ENOSPC."""
        with self._ballast.open("wb", buffering=0) as file:
            for size in (MIB, 4096):
                try:
                    while True:
                        file.write(b"\0" * size)
                except OSError:
                    continue

    def empty(self) -> None:
        """Makes room again."""
        self._ballast.unlink(missing_ok=True)

    def freeze(self) -> None:
        """Whoever writes or makes a file waits, in the kernel, as on hard-mounted NFS whose server is away."""
        _run("fsfreeze", "--freeze", self.folder)

    def thaw(self) -> None:
        _run("fsfreeze", "--unfreeze", self.folder)

    @contextmanager
    def slow(self, *, stalled_s: float = 1.0, free_s: float = 0.1) -> Iterator[None]:
        """Writes wait, again and again; between two waits the disk is free for a moment."""
        ended = threading.Event()

        def stall() -> None:
            while not ended.is_set():
                self.freeze()
                ended.wait(stalled_s)
                self.thaw()
                ended.wait(free_s)

        thread = threading.Thread(target=stall)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def fail(self) -> None:
        """The file system gives up as after an error of the disk: at once read-only, open files included."""
        _run("mount", "-o", "remount,abort", self.folder)

    def repair(self) -> None:
        """Checks the file system and mounts it anew, as soon as nothing has files open in it."""
        wait_until(lambda: _unmounted(self.folder), timeout_s=120, every_s=1.0)
        subprocess.run(["fsck.ext4", "-p", str(self._image)], capture_output=True, check=False)
        self._mount()

    def close(self) -> None:
        subprocess.run(["fsfreeze", "--unfreeze", str(self.folder)], capture_output=True, check=False)
        wait_until(lambda: _unmounted(self.folder), timeout_s=60)
        self._image.unlink(missing_ok=True)

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"

    def _mount(self) -> None:
        _run("mount", "-o", "loop,noatime", self._image, self.folder)


def _unmounted(folder: Path) -> bool:
    if _is_mount(folder):
        subprocess.run(["umount", str(folder)], capture_output=True, check=False)
    return not _is_mount(folder)


def _is_mount(folder: Path) -> bool:
    # `Path.is_mount` does not see that a folder is mounted onto itself.
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    return str(folder) in (line.split()[1] for line in mounts)


def _run(*command: str | Path) -> None:
    subprocess.run(list(map(str, command)), check=True, capture_output=True)


@contextmanager
def disk(folder: Path) -> Iterator[Disk]:
    """A disk that is gone afterwards; hosts see it come and go, which have name spaces of mounts of their own."""
    shared = folder / "shared"
    shared.mkdir()
    _run("mount", "--bind", shared, shared)
    _run("mount", "--make-shared", shared)
    try:
        made = Disk(folder / "results.img", shared / "disk")
        try:
            yield made
        finally:
            made.close()
    finally:
        wait_until(lambda: _unmounted(shared), timeout_s=60)
