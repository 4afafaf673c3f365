"""Why does a search end before its trials are used up?"""

from __future__ import annotations

import threading

STORAGE_FAILS = "the results folder cannot be written"


class Halt:
    """Why a search ends before its trials are used up; asked by Tune's loop, set by whoever knows."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.reason: str | None = None
        self.interrupted = False
        self.hopeless = False

    def because(self, reason: str, *, interrupted: bool = False, hopeless: bool = False) -> None:
        """Asks for the end; the first reason stays, unless a person interrupts what comes after a search's own end.

        Args:
            interrupted: a person asked; running trials are kept for a resume.
            hopeless: every trial fails, so the search has failed.
        """
        if not self._event.is_set() or (interrupted and not self.interrupted):
            self.reason, self.interrupted, self.hopeless = reason, interrupted, hopeless
            self._event.set()

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    @property
    def is_spent(self) -> bool:
        """Whether the search has come to the end of its budget."""
        return self.requested and not self.interrupted and not self.hopeless
