"""Did a trial fail, or was its worker lost? What Ray's errors say about it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from search.redaction import redacted
from search.restarts import Interruption, Kind

# What the other workers of a group say when one of them is gone; gloo names where in its transport it noticed.
_BROKEN_CONNECTION = re.compile(
    r"connection (was )?(closed|reset|refused)|broken pipe|socket closed|remote process exited|gloo/transport", re.I
)
# What Ray's memory monitor says, of whose errors Tune keeps the text only.
_MEMORY_MONITOR = re.compile(r"^.*killed due to the node running low on memory.*$", re.M)
# Attributes of Ray's errors that hold what happened.
_WRAPPED_AS = ("cause", "_base_exc", "controller_failure", "health_check_failure")
_COLORS = re.compile(r"\x1b\[[0-9;]*m")


class NodeTakenBackError(Exception):
    """A trial has lost a node of which Ray had been told that it goes."""


def interruption_of(error: BaseException, *, in_group: bool = False) -> Interruption | None:
    """What an error says about lost workers; None where it is the trial's own.

    Args:
        in_group: whether the trial had several workers; one that is lost explains whatever the others say.
    """
    errors = list(_within(error))
    checks = [(_is_preemption, Kind.PREEMPTED), (_is_memory, Kind.MEMORY), (_is_loss, Kind.LOST)]
    if in_group:
        checks.append((_is_broken_connection, Kind.LOST))
    for check, kind in checks:
        for each in errors:
            if check(each):
                return interruption_from_text(str(each), otherwise=kind)
    return None


def interruption_from_text(text: str, *, otherwise: Kind = Kind.BROKEN) -> Interruption:
    """The same from what is written about a trial whose error is not at hand.

    Args:
        otherwise: what it was, unless the text says that memory ran out.
    """
    said = _COLORS.sub("", text)
    memory = _MEMORY_MONITOR.search(said)
    if memory is not None:
        return Interruption(Kind.MEMORY, redacted(memory[0]).strip()[:500])
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return Interruption(otherwise, redacted(lines[-1])[:500] if lines else "its process ended without a message")


def _within(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that Ray wraps in it."""
    yield error
    inner = [getattr(error, name, None) for name in _WRAPPED_AS]
    inner += list((getattr(error, "worker_failures", None) or {}).values())
    for each in inner:
        if isinstance(each, BaseException) and each is not error:
            yield from _within(each)


def _is_preemption(error: BaseException) -> bool:
    # Ray Train's own class of that name is imported with torch only.
    taken_back = isinstance(error, NodeTakenBackError) or type(error).__name__ == "PreemptionError"
    return taken_back or (isinstance(error, RayActorError) and error.preempted)


def _is_memory(error: BaseException) -> bool:
    return isinstance(error, OutOfMemoryError)


def _is_loss(error: BaseException) -> bool:
    if type(error).__name__ == "WorkerHealthCheckTimeoutError":  # of Ray Train: a worker that does not answer
        return True
    if isinstance(error, RayActorError):
        return not error.actor_init_failed
    return isinstance(error, RayError) and not isinstance(error, RayTaskError)


def _is_broken_connection(error: BaseException) -> bool:
    return isinstance(error, RuntimeError | OSError) and _BROKEN_CONNECTION.search(str(error)) is not None
