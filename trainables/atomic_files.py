"""How is a file replaced so that a reader finds the old one or the new one, never half?

Not even after a power cut: the file is on the disk before it takes the other's place. Without that a file system may
know the new name first, and what it then holds is empty.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from trainables.object_store import publish, publish_kept
from trainables.storage_errors import storage_error


def write_beside(path: Path, write: Callable[[Path], object], *, keep: Path | None = None, sync: bool = True) -> None:
    """Has a file written beside its target and moved over it; makes the folder, and leaves nothing of a failure.

    A copy of an object in a store is that object's next version, too (`trainables.object_store`).

    Args:
        keep: where the file goes that was the target before. For a moment there is then no target, but always one of
            the two.
        sync: whether it is to survive a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")  # a disk may be shared
    try:
        _write(temporary, write)
        if sync:
            _sync(temporary)
        if keep is not None and path.exists():
            publish_kept(path, keep)
            os.replace(path, keep)  # noqa: PTH105
        os.replace(temporary, path)  # noqa: PTH105 (named for what it does: atomic on one file system)
        publish(path)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Says of a disk that fails what the disk said: torch and safetensors raise errors of their own."""
    try:
        write(path)
    except Exception as error:
        found = storage_error(error)
        if found is None or found is error:
            raise
        raise found from error
