"""Who hears a signal? The person's handlers, also after a library has put its own in their place."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def signals_kept() -> Iterator[None]:
    """Puts back the handlers of Ctrl-C and SIGTERM that a block replaces.

    `ray.init` installs handlers that end the process at once; with them, a scheduler that asks a search to end would
    not get its state saved.
    """
    if threading.current_thread() is not threading.main_thread():  # only there are handlers set
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
