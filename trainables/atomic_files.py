"""How is a file replaced so that a reader finds the old one or the new one, never half?"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Has a file written beside its target and moved over it; makes the folder, and leaves nothing of a failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, path)  # noqa: PTH105 (named for what it does: atomic on one file system)
    finally:
        temporary.unlink(missing_ok=True)
