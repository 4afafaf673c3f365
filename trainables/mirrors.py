"""Where does a run lie that is in an object store (`s3://`, `gs://`)? Each node works on a copy of it.

A run under `s3://bucket/runs/name` has the folder `<mirrors>/s3/bucket/runs/name` on every node, the same path
everywhere. A path below `<mirrors>` says by itself what it is a copy of, so that processes need to be told nothing
else.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trainables.errors import ConfigError

# The stores that are known, and where another server is asked than Amazon's or Google's: by variables that their own
# programs know.
_ENDPOINTS = {"s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), "gs": ("STORAGE_EMULATOR_HOST",)}
_CREDENTIALS = {"s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "gs": ("GOOGLE_APPLICATION_CREDENTIALS",)}
# Attempts of a request to S3, with pauses that double: 95 s and 9 s were measured where nothing listens. GCS takes a
# time instead: by default it tries for a quarter of an hour.
_PATIENT, _IMPATIENT = 10, 6
_GCS_RETRIES = {_PATIENT: timedelta(seconds=95), _IMPATIENT: timedelta(seconds=9)}
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html, and Google's allow underscores.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]+")
_FOLDER = "vistune-mirrors"
_OWN = "vistune-"
_VARIABLE = "VISTUNE_MIRRORS"


@dataclass(frozen=True)
class Mirror:
    """One path of a copy, and the object that it is a copy of.

    Attributes:
        scheme: of the store.
        key: bucket and key, or bucket and prefix, with slashes between.
    """

    scheme: str
    key: str

    @property
    def uri(self) -> str:
        return f"{self.scheme}://{self.key}"

    @property
    def bucket(self) -> str:
        return self.key.partition("/")[0]

    @property
    def variables(self) -> str:
        """Of the environment, those that say where the store is and who asks."""
        return ", ".join((*_ENDPOINTS[self.scheme], *_CREDENTIALS[self.scheme]))

    @property
    def store(self) -> Any:
        """The `pyarrow.fs.FileSystem`; one that is out of reach is asked again for a minute and more."""
        return self._store(attempts=_PATIENT)

    @property
    def first_asked(self) -> Any:
        """The same, but it gives up within some ten seconds: for a person who waits, and has perhaps mistyped it."""
        return self._store(attempts=_IMPATIENT)

    def _store(self, *, attempts: int) -> Any:
        names = _ENDPOINTS[self.scheme]
        endpoint = next((os.environ[name] for name in names if os.environ.get(name)), None)
        return _store(self.scheme, endpoint, attempts)


def local_path(given: str) -> Path:
    """Where the folder of runs that a person names lies on this machine: itself, or its copy.

    Raises:
        ConfigError: if it is in a store that is not known, or carries credentials.
    """
    if "://" not in given:
        return Path(given).expanduser()
    try:
        parts = urlsplit(given)
    except ValueError as error:
        raise ConfigError(f"{given}: is no address ({error}); give s3://BUCKET/FOLDER or gs://BUCKET/FOLDER") from error
    if "@" in parts.netloc or parts.query:  # first, since no other message may show them
        raise ConfigError(
            f"{parts.scheme}://: give bucket and folder alone; credentials and endpoint belong into the environment of "
            "the nodes (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL)"
        )
    if parts.scheme not in _ENDPOINTS:
        raise ConfigError(f"{given}: {parts.scheme}:// is not known; use s3://, gs://, or a folder that is mounted")
    if parts.fragment or given.endswith("#"):
        raise ConfigError(f"{given}: has a #, behind which an address says nothing to a store; name the folder without")
    if not _BUCKET.fullmatch(parts.netloc):
        raise ConfigError(f"{given}: names no bucket; give {parts.scheme}://BUCKET/FOLDER")
    if {"", ".", ".."} & set(parts.path.strip("/").split("/")) and parts.path.strip("/"):
        raise ConfigError(f"{given}: has an empty part, or one of dots; give {parts.scheme}://BUCKET/FOLDER")
    return mirrors() / parts.scheme / parts.netloc / parts.path.strip("/")


def mirrors() -> Path:
    """The folder of all copies: in $VISTUNE_MIRRORS, else in one of this user's own among temporary files.

    Raises:
        ConfigError: if that is another user's, or others may write there.
    """
    if os.environ.get(_VARIABLE):
        return Path(os.environ[_VARIABLE]) / _FOLDER
    own = Path(tempfile.gettempdir()) / f"{_OWN}{os.getuid()}"
    _make_private(own)
    return own / _FOLDER


def require_private(path: Path) -> None:
    """Makes the folder that a copy lies in, on a node to which only its path was told, for this user alone.

    Raises:
        ConfigError: if it is there, and others may write there.
    """
    own, is_copy, _ = str(path).partition(f"{os.sep}{_FOLDER}{os.sep}")
    if is_copy and own.startswith(f"{tempfile.gettempdir()}{os.sep}{_OWN}"):
        _make_private(Path(own))


def _make_private(own: Path) -> None:
    with suppress(FileExistsError):
        own.mkdir(mode=0o700)
    found = own.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ConfigError(f"{own}: others may write there; remove it, or give a folder of your own with ${_VARIABLE}")


def mirror_of(path: Path) -> Mirror | None:
    """What a path is a copy of; None where it is a path like any other, or leads back out with dots."""
    text = str(path)
    before, found, after = text.partition(f"{os.sep}{_FOLDER}{os.sep}")
    del before
    if not found or ".." in Path(after).parts:
        return None
    scheme, _, key = after.partition(os.sep)
    return Mirror(scheme, key)


def shown(path: Path) -> str:
    """A path as a person knows it."""
    mirror = mirror_of(path)
    return str(path) if mirror is None else mirror.uri


@lru_cache(maxsize=8)
def _store(scheme: str, endpoint: str | None, attempts: int) -> Any:
    from pyarrow import fs

    if scheme == "s3":
        # Delayed: a small object is one request instead of three.
        return fs.S3FileSystem(
            endpoint_override=endpoint,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=attempts),
            allow_delayed_open=True,
        )
    if endpoint is None:
        return fs.GcsFileSystem(retry_time_limit=_GCS_RETRIES[attempts])
    protocol, _, host = endpoint.rpartition("://")
    return fs.GcsFileSystem(
        anonymous=True, scheme=protocol or "http", endpoint_override=host, retry_time_limit=_GCS_RETRIES[attempts]
    )
