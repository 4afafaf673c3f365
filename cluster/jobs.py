"""How does one speak to a cluster's job server? Connects with the token, submits, finds, follows and stops jobs."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shlex
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import requests

from cluster.package import Package
from search.redaction import redacted
from trainables.errors import ConfigError, VistuneError, first_line

# Under what a job's metadata say which run it works on.
RUN, STORAGE, KIND = "vistune_run", "vistune_storage", "vistune_kind"

# Ray kills a job that is told to stop after 3 s. A search needs longer to end as after Ctrl-C: it waits for the
# trials' actors and writes its tables. Read by Ray in the environment of the process that watches over the job.
STOP_WAIT_S = 120

_ENVIRONMENT = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S), "NO_ALBUMENTATIONS_UPDATE": "1"}
_SERVER_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_TOKEN_REMEDY = (
    "on the head node `ray get-auth-token` prints it; here put it into a file that only you can read and set "
    "RAY_AUTH_TOKEN_PATH to that file (or RAY_AUTH_TOKEN to the token itself, or write it to ~/.ray/auth_token)"
)
_RETRY_S = (1.0, 2.0, 4.0, 8.0, 15.0)
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
# Exit status of a search that was refused before it began: another process runs it, or its folder is not there.
_REFUSED = 2
# What Ray writes into the log of a job before the command's own output.
_RAYS_OWN = re.compile(
    r"Running entrypoint for job |\[?\d{4}-\d\d-\d\d[ T][\d:,.]+.*(Runtime env is setting up|runtime_env)"
)


class ClusterError(VistuneError):
    """The cluster cannot be reached, does not let one in, or refuses what it was asked."""


@dataclass(frozen=True)
class Job:
    """A job of a search, as the cluster tells of it.

    Attributes:
        status: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        storage: folder on the cluster that holds the run, where it was given.
        exit_code: of its process, once it has ended by itself.
        message: what the cluster says about it.
    """

    id: str
    status: str
    run: str | None
    storage: str | None
    exit_code: int | None
    message: str
    started_ms: int

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def refused(self) -> bool:
        return self.exit_code == _REFUSED


class Cluster:
    """A cluster's job server.

    Attributes:
        shown: its address as it may be printed and kept.

    Raises:
        ClusterError: if nothing answers at the address, or the token is missing or wrong.
    """

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")
        self.shown = redacted(self._address)
        if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
            raise ConfigError(
                f"--address: {self.shown!r} is no address of a job server; give that of the head node's dashboard, for "
                "instance http://HEAD:8265"
            )
        use_token_if_there()
        from cluster.job_client import JobClient

        logging.getLogger("ray").setLevel(logging.WARNING)  # it tells of each request
        with told(self.shown), _only_this_address():
            self._client = JobClient(self._address)
        logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)
        logging.getLogger("ray.dashboard.modules.dashboard_sdk").setLevel(logging.WARNING)

    def submit(
        self, command: Sequence[str], *, package: Package, run: str, kind: str, storage: str | None, **variables: str
    ) -> str:
        """Sends a package, unless the cluster has it, and starts a command in it on the head node; returns the job."""
        metadata = {RUN: run, KIND: kind, **({} if storage is None else {STORAGE: storage})}
        job = f"{kind}-{run}-{uuid.uuid4().hex[:6]}"
        with TemporaryDirectory() as folder, told(self.shown):
            archive = Path(folder) / "package.zip"
            package.write(archive)
            return str(
                self._client.submit_job(
                    # Without a shell in between: Ray signals every process of a job, and the shell would go first.
                    entrypoint=f"exec {shlex.join(command)}",
                    submission_id=job,
                    runtime_env={"working_dir": str(archive), "env_vars": {**_ENVIRONMENT, **variables}},
                    metadata=metadata,
                )
            )

    def job(self, name: str) -> Job:
        """The job of that name, or the search of the run of that name: the one that goes on, else the latest.

        A search that was refused (since the run was under way, for instance) stands for the run only if no other does.

        Raises:
            ClusterError: if there is neither; names the searches there are.
        """
        with told(self.shown):
            jobs = [_job(details) for details in self._client.list_jobs() if details.submission_id]
        for job in jobs:
            if job.id == name:
                return job
        searches = sorted((job for job in jobs if job.id.startswith("search-")), key=lambda job: job.started_ms)
        of_run = [job for job in searches if job.run == name]
        if of_run:
            return latest(of_run)
        known = ", ".join(f"{job.id} ({job.status.lower()})" for job in searches[-8:]) or "none"
        raise ClusterError(f"{self.shown}: no job or run {name!r}; searches there: {known}")

    def stop(self, job: str) -> None:
        """Asks a job to end; returns at once."""
        with told(self.shown):
            self._client.stop_job(job)

    def follow(self, job: str, *, lost: Callable[[str], None] | None = None) -> Iterator[str]:
        """The lines of a job's log from its beginning until it has ended, without their line ends.

        A connection that breaks is made anew, and what was read before is not told again.

        Args:
            lost: called with what is wrong, each time.

        Raises:
            ClusterError: when the cluster does not answer for about half a minute.
        """
        read, rest, failures = 0, "", 0
        while True:
            skip = read
            try:
                for chunk in _blocking(self._client.tail_job_logs(job)):
                    new, skip = chunk[skip:], max(0, skip - len(chunk))
                    if new or not skip:  # to be sent again what is known is no progress
                        failures = 0
                    read += len(new)
                    *lines, rest = (rest + new).split("\n")
                    yield from (line for line in lines if not _RAYS_OWN.match(line))
                if self.job(job).ended:
                    break
                time.sleep(_RETRY_S[0])  # the server let go of the log, not of the job
            except (ClusterError, RuntimeError, OSError, aiohttp.ClientError) as error:
                if isinstance(error, aiohttp.WSServerHandshakeError) and error.status in (401, 403):
                    raise _refusal(self.shown, missing=error.status == 401) from error
                failures += 1
                if failures > len(_RETRY_S):
                    raise ClusterError(f"{self.shown}: the connection is lost ({first_line(error)})") from error
                if lost is not None:
                    lost(first_line(error))
                time.sleep(_RETRY_S[failures - 1])
        if rest:
            yield rest


def latest(searches: Sequence[Job]) -> Job:
    """Of the searches of one run that which goes on, else the one that began last; refused ones last of all."""
    return max(searches, key=lambda job: (not job.ended, not job.refused, job.started_ms))


def use_token_if_there() -> None:
    """Has Ray send the token that this machine has; it does so only when told, before it is imported.

    Raises:
        ConfigError: if the file that should hold it is not there or has none, or it cannot be sent.
    """
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        where = "$RAY_AUTH_TOKEN"
    elif path:
        where = f"$RAY_AUTH_TOKEN_PATH: {path}"
        token = _read_token(Path(path), where)
    elif (Path.home() / ".ray" / "auth_token").is_file():
        where = "~/.ray/auth_token"
        token = _read_token(Path.home() / ".ray" / "auth_token", where)
    else:
        return
    if not token.isascii() or not token.isprintable():
        raise ConfigError(f"{where}: holds characters that no token has; {_TOKEN_REMEDY}")
    os.environ.setdefault("RAY_AUTH_MODE", "token")


def _read_token(path: Path, where: str) -> str:
    try:
        token = path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read ({error.strerror}); {_TOKEN_REMEDY}") from error
    if not token:
        raise ConfigError(f"{where}: is empty; {_TOKEN_REMEDY}")
    return token


@contextmanager
def told(address: str) -> Iterator[None]:
    """Says in a sentence what Ray's client raises."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        # Ray's own text begins so for 403; never passed on whole, so that no version of it can show a token.
        raise _refusal(address, missing="Authentication failed" not in str(error)) from None
    except (ConnectionError, requests.exceptions.ConnectionError) as error:
        raise ClusterError(
            f"{address}: nothing answers there; is the cluster up, is its dashboard on that port, and is there a way "
            "to it (for instance ssh -N -L 8265:127.0.0.1:8265 HEAD, then --address http://127.0.0.1:8265)?"
        ) from error
    except requests.exceptions.Timeout as error:
        raise ClusterError(f"{address}: something accepts there, but does not answer; is it the job server?") from error
    except (RuntimeError, requests.exceptions.RequestException, ValueError) as error:
        if "Jobs API is not supported" in str(error):
            raise ClusterError(
                f"{address}: what answers there is not Ray's job server; give the address of the head node's dashboard"
            ) from error
        raise ClusterError(f"{address}: {first_line(error)}") from error


def _refusal(address: str, *, missing: bool) -> ClusterError:
    what = "asks for a token, and none was sent" if missing else "does not accept the token that was sent"
    return ClusterError(f"{address}: the cluster {what}; {_TOKEN_REMEDY}")


@contextmanager
def _only_this_address() -> Iterator[None]:
    """Ray lets these variables win over the address that it is given."""
    kept = {name: os.environ.pop(name) for name in _SERVER_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _blocking(chunks: Any) -> Iterator[str]:
    """The items of an asynchronous iterator, one by one."""
    with asyncio.Runner() as runner:
        try:
            while True:
                try:
                    yield runner.run(anext(chunks))
                except StopAsyncIteration:
                    return
        finally:
            runner.run(chunks.aclose())


def _job(details: Any) -> Job:
    metadata: Mapping[str, str] = details.metadata or {}
    return Job(
        id=details.submission_id,
        status=str(getattr(details.status, "value", details.status)),
        run=metadata.get(RUN),
        storage=metadata.get(STORAGE),
        exit_code=details.driver_exit_code,
        message=details.message or "",
        started_ms=details.start_time or 0,
    )
