"""Is it the storage that fails, rather than what is written? A trial is none the worse for a disk that is full."""

from __future__ import annotations

import errno
import re

# What a disk, or the server of a network file system, says: full, over quota, read-only, broken, away.
_NUMBERS = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENOTCONN, errno.ETIMEDOUT)
)
_OF_RUST = re.compile(r"\(os error (\d+)\)")  # safetensors raises an error of its own with this text


def storage_error(error: BaseException | None) -> OSError | None:
    """The error of the storage that is behind an error, if there is one."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _NUMBERS:
            return error
        told = _OF_RUST.search(str(error))
        if told is not None and int(told[1]) in _NUMBERS:
            return OSError(int(told[1]), str(error))
        error = error.__cause__ or error.__context__
    return None
