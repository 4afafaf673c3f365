"""Copies of what lies in an object store, S3 or GCS: against servers that speak these, by two machines with copies."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from pyarrow.fs import FileInfo, FileType

from tests.cluster.proxy import way_to
from tests.object_server import BUCKET, gcs_server, object_server
from trainables.atomic_files import write_beside
from trainables.checkpoint import Attempt, TrialFiles, newest_epoch, save_checkpoint
from trainables.errors import ConfigError, SupersededError
from trainables.mirrors import local_path, mirror_of, shown
from trainables.object_store import (
    _is_written_here,
    fetch,
    fetch_file,
    names_in,
    paths_below,
    publish,
    publish_folder,
    read_shared,
    remove,
    remove_objects,
    size_of,
    total_size,
)
from trainables.storage_errors import storage_error


def test_a_key_that_would_lead_out_of_the_copy_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISTUNE_MIRRORS", str(tmp_path / "one"))
    folder = local_path("s3://bucket/runs") / "run"
    mirror = mirror_of(folder)
    assert mirror is not None

    class Listed:
        def get_file_info(self, asked: object) -> list[FileInfo]:
            del asked
            keys = ("summary.json", "../../../../escaped.txt", "a/../b.txt", "a//c.txt")
            return [FileInfo(f"bucket/runs/run/{key}", type=FileType.File, size=1) for key in keys]

    monkeypatch.setattr(type(mirror), "store", Listed())
    assert paths_below(folder, wanted=lambda _: True) == [folder / "summary.json"]


@pytest.mark.parametrize("host", ["node1", "ip-10-0-0-1.us-west-2.compute.internal"])
def test_curves_that_are_written_here_are_told_by_the_host_s_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    mine, other = (tmp_path / f"events.out.tfevents.1790000000.{name}.123.0" for name in (host, "node2.x"))
    for path in (mine, other):
        path.touch()
    assert _is_written_here(mine) and not _is_written_here(other)


@dataclass(frozen=True)
class Store:
    """A folder of runs in a store, and how it is reached."""

    uri: str
    environment: dict[str, str]


SERVERS = {"s3": object_server, "gs": gcs_server}


@pytest.fixture(scope="module", params=list(SERVERS))
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with SERVERS[request.param](tmp_path_factory.mktemp("server")) as told:
        yield Store(f"{request.param}://{BUCKET}/some/runs", told)


@pytest.fixture
def one(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run's folder on a machine; everything in it is gone afterwards."""
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("VISTUNE_MIRRORS", str(tmp_path / "one"))
    folder = local_path(store.uri) / "run"
    yield folder
    remove_objects(folder)


@pytest.fixture
def other(one: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same on another machine."""
    monkeypatch.setenv("VISTUNE_MIRRORS", str(tmp_path / "other"))
    return local_path(store.uri) / one.name


def write(path: Path, text: str, *, keep: Path | None = None) -> None:
    write_beside(path, lambda temporary: temporary.write_text(text), keep=keep)


def test_a_folder_of_this_machine_stays_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, "text")

    assert local_path("results/x") == Path("results/x")
    assert mirror_of(path) is None and shown(path) == str(path)
    assert size_of(path) == 4 and read_shared(path) == "text"
    publish(path)
    fetch(tmp_path)
    assert path.read_text() == "text"
    remove(path)
    assert not path.exists() and size_of(path) is None


def test_what_is_written_here_is_found_there(one: Path, other: Path, store: Store) -> None:
    write(one / "trials" / "0001" / "file", "first")
    write(one / "config.yaml", "a: 1")

    assert shown(one / "config.yaml") == f"{store.uri}/run/config.yaml"
    assert names_in(other.parent) == ["run"] and names_in(other) == ["trials"]
    assert total_size(other) == 9
    fetch(other, wanted=lambda name: not name.startswith("trials/"))
    assert [path.name for path in other.rglob("*") if path.is_file()] == ["config.yaml"]
    fetch(other)
    assert (other / "trials" / "0001" / "file").read_text() == "first"
    write(other / "config.yaml", "a: 2")
    fetch_file(one / "config.yaml")
    assert (one / "config.yaml").read_text() == "a: 2"


def test_what_the_store_has_not_goes_from_the_copy_but_curves(one: Path, other: Path) -> None:
    write(one / "file", "text")
    fetch(other)
    events = other / "events.out.tfevents.1.some-host.1.0"
    events.write_bytes(b"curve")

    assert paths_below(other, wanted=lambda name: name.startswith("fi")) == [other / "file"]
    remove(one / "file")
    remove(one / "file")  # as with a file
    assert paths_below(other, wanted=lambda _: True) == []
    fetch(other)

    assert [path.name for path in other.iterdir()] == [events.name]


def test_only_what_may_differ_is_brought(one: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (one / "folder").mkdir(parents=True)
    for name in ("a", "b"):
        (one / "folder" / name).write_text(name)
    publish_folder(one / "folder")
    fetch(other)
    (one / "folder" / "b").write_text("c")  # as large, and perhaps in the same second
    publish(one / "folder" / "b")
    fetch(other)
    assert (other / "folder" / "b").read_text() == "c"

    monkeypatch.setattr("trainables.object_store._SETTLED_AFTER_S", -1.0)
    fetch(other)
    written = {path.name: path.stat().st_ino for path in (other / "folder").iterdir()}
    (one / "folder" / "b").write_text("another")
    publish_folder(one / "folder")
    fetch_file(other / "folder" / "a")
    fetch_file(other / "folder" / "b")

    assert (other / "folder" / "b").read_text() == "another"
    assert (other / "folder" / "b").stat().st_ino != written["b"]


def test_the_file_before_stays(one: Path, other: Path) -> None:
    for text in ("first", "second", "third"):
        write(one / "new", text, keep=one / "old")

    fetch(other)

    assert {path.name: path.read_text() for path in other.iterdir()} == {"new": "third", "old": "second"}


def test_a_trial_goes_on_elsewhere_and_its_first_process_may_write_no_more(one: Path, other: Path) -> None:
    here, there = TrialFiles(one / "trials" / "0000"), TrialFiles(other / "trials" / "0000")
    first = Attempt(here)
    for epoch in (1, 2):
        first.require()
        save_checkpoint(here, {"epoch": epoch, "weights": torch.full((3,), float(epoch))})

    second = Attempt(there)

    assert newest_epoch(there) == 2
    second.require()
    with pytest.raises(SupersededError):
        first.require()
    there.remove_checkpoints()
    assert newest_epoch(here) == 0, "a copy is not taken for what the store has"
    with pytest.raises(SupersededError):
        second.require()


def test_a_large_object_arrives_whole(one: Path, other: Path) -> None:
    content = os.urandom(12 * 2**20)  # in several parts
    write_beside(one / "weights", lambda temporary: temporary.write_bytes(content))

    fetch(other)

    assert (other / "weights").read_bytes() == content


def test_a_bucket_that_is_missing_is_an_error_of_the_storage(one: Path) -> None:
    mirror = mirror_of(one)
    assert mirror is not None
    path = local_path(f"{mirror.scheme}://no-such-bucket/runs") / one.name
    with pytest.raises(OSError, match="no-such-bucket") as caught:
        write(path, "text")
    assert storage_error(caught.value) is not None


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("ftp://host/runs", "use s3://, gs://"),
        ("s3:///runs", "names no bucket"),
        ("s3://key:secret@bucket/runs", "credentials"),
        ("s3://bucket/runs?endpoint_override=x", "endpoint"),
    ],
)
def test_what_cannot_be_used_is_said_without_secrets(uri: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        local_path(uri)
    assert "secret@" not in str(caught.value)


@pytest.mark.slow
def test_a_store_that_is_out_of_reach_for_half_a_minute_is_waited_for(
    one: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "AWS_ENDPOINT_URL"
    if name not in store.environment:
        pytest.skip("Google's client waits by the clock, which was there before")
    before, _, port = store.environment[name].rpartition(":")
    with way_to(int(port)) as proxy, monkeypatch.context() as patch:
        patch.setenv(name, f"{before}:{proxy.port}")
        publish(write_one(one / "first"))
        proxy.down = True
        proxy.cut()
        threading.Timer(30.0, setattr, (proxy, "down", False)).start()
        started = time.monotonic()
        publish(write_one(one / "second"))
        assert time.monotonic() - started > 20.0, "it was not out of reach"
    assert size_of(one / "second") is not None


def write_one(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    return path
