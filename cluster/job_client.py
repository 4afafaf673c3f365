"""Ray's client of a job server, but it does not wait for ever for one that accepts and never answers."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from ray.job_submission import JobSubmissionClient

# Seconds to connect, and to the next byte of an answer; the server answers within seconds also while it starts a job.
TIMEOUT_S = (15.0, 120.0)

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class JobClient(JobSubmissionClient):  # type: ignore[misc]  # Ray tells no types
    """Every request has a time limit."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        # A proxy is no way to this very machine, where a tunnel ends, and is to see no token.
        direct = (
            {"proxies": dict.fromkeys(("http", "https", "all"))}
            if urlsplit(self._address).hostname in _LOOPBACK
            else {}
        )
        return super()._do_request(method, endpoint, **{"timeout": TIMEOUT_S, **direct, **options})
