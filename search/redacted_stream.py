"""Standard output and error without secrets: what this process prints, and what Ray forwards from its workers."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from search.redaction import redacted


class RedactedStream:
    """Writes line by line what another stream is to have, `redacted`; in all else it is that stream.

    What is written to the file itself, by C++ code or child processes, does not come here.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._begun = ""
        # Of a thread that is interrupted while it writes, the handler of the signal may write too.
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        """Keeps what has no end of line yet: a secret may come in several pieces."""
        with self._lock:
            whole, end, self._begun = (self._begun + text).rpartition("\n")
            if end:
                self._stream.write(redacted(whole) + end)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Writes an unfinished line too."""
        with self._lock:
            begun, self._begun = self._begun, ""
            if begun:
                self._stream.write(redacted(begun))
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def redacted_output() -> Iterator[None]:
    """Standard output and error through a `RedactedStream`, also for loggers that write to them already."""
    originals = {"stdout": sys.stdout, "stderr": sys.stderr}
    streams: dict[str, Any] = {name: RedactedStream(stream) for name, stream in originals.items()}
    for name, stream in streams.items():
        setattr(sys, name, stream)
        _move_handlers(originals[name], stream)
    try:
        yield
    finally:
        for name, stream in streams.items():
            with suppress(OSError):  # on a full disk
                stream.flush()
            setattr(sys, name, originals[name])
            _move_handlers(stream, originals[name])


def _move_handlers(old: Any, new: Any) -> None:
    named = [each for each in logging.Logger.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    for handler in {handler for logger in [logging.getLogger(), *named] for handler in logger.handlers}:
        if isinstance(handler, logging.StreamHandler) and handler.stream is old:
            with suppress(OSError, ValueError):  # flushing what is closed
                handler.setStream(new)
