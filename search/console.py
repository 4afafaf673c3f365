"""One quiet terminal: what vistune says goes to the person, what libraries print goes to the run's log."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console

from search.redacted_stream import redacted_output


@contextmanager
def open_console() -> Iterator[Console]:
    """A console on the process's present standard output, also while `libraries_to` is in force."""
    stream = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", errors="replace", buffering=1)
    try:
        yield Console(file=stream, highlight=False, soft_wrap=not stream.isatty())
    finally:
        with suppress(BrokenPipeError):  # whoever read has seen enough: `| head`
            stream.close()


@contextmanager
def libraries_to(log: Path) -> Iterator[None]:
    """Sends everything written to standard output and error to a file, C++ code and child processes included.

    Secrets are left out of what Python writes, which is what Ray forwards from its workers, too.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {fd: os.dup(fd) for fd in (1, 2)}
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        for fd in kept:
            os.dup2(target, fd)
        with redacted_output():
            yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # on a full disk; the person is to be told
                stream.flush()
        for fd, original in kept.items():
            os.dup2(original, fd)
            os.close(original)
        os.close(target)
