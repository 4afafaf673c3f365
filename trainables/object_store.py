"""How do copies of what lies in an object store follow it, and how does it follow them? By whole files.

All functions here do nothing more than their plain counterparts for paths that are no copies (`trainables.mirrors`). An
object appears whole or not at all, which is what `write_beside` does for files.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainables.errors import first_line
from trainables.mirrors import Mirror, mirror_of

# Of a key such as runs/../../x: parts that would lead out of a copy, or that no file system keeps.
_DOTS = frozenset(("", ".", ".."))
# Event files are written on, and belong to whoever writes them; a copy of them must not take their place.
_EVENTS = "events.out.tfevents."
# Stores tell times in whole seconds: an object that is so old (clocks differ a little) is not written again with the
# time that it has; a younger one may be, so that a copy of it is not known to be the latest.
_SETTLED_AFTER_S = 60.0
# By so much the copy of a young object is dated back, so that it has the time of no object.
_BEFORE_NS = 10 * 10**9


# Folders of which nothing that this process writes is to reach the store any more.
_let_go: set[Path] = set()


def let_go(folder: Path) -> None:
    """Has nothing that this process writes or removes below a folder reach the store from now on."""
    _let_go.add(folder)


def take_hold(folder: Path) -> None:
    """Ends `let_go`."""
    _let_go.discard(folder)


def _is_let_go(path: Path) -> bool:
    return not _let_go.isdisjoint((path, *path.parents))


def publish(path: Path) -> None:
    """Has an object follow its file, which may be gone by then.

    Raises:
        OSError: if the store cannot be written.
    """
    mirror = mirror_of(path)
    if mirror is None or not path.is_file() or _is_let_go(path):
        return
    with _told(mirror):
        _upload(mirror, path)


def publish_folder(folder: Path) -> None:
    """The same for all files below a folder."""
    if mirror_of(folder) is not None and folder.is_dir():
        for path in sorted(folder.rglob("*")):
            if not path.name.startswith("."):
                publish(path)


def publish_kept(path: Path, kept: Path) -> None:
    """Has the object of `path` live on as that of `kept`, before another takes its place."""
    mirror, target = mirror_of(path), mirror_of(kept)
    if mirror is None or target is None or _is_let_go(path):
        return
    with _told(mirror):
        if _info(mirror) is not None:
            mirror.store.copy_file(mirror.key, target.key)


def fetch(folder: Path, *, wanted: Callable[[str], bool] = lambda _: True) -> None:
    """Makes the files of a folder those of the store; files that it has not go, event files excepted.

    Args:
        wanted: of paths below the folder, which; others stay as they are.

    Raises:
        OSError: if the store cannot be read.
    """
    mirror = mirror_of(folder)
    if mirror is None:
        return
    with _told(mirror):
        objects = {name: info for name, info in _objects(mirror) if wanted(name)}
        for name, info in objects.items():
            path = folder / name
            if not _same(path, info) and not _is_written_here(path):
                _download(_child(mirror, name), path, info)
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        gone = path.is_file() and name not in objects and wanted(name)
        if gone and not path.name.startswith((_EVENTS, ".")):
            path.unlink(missing_ok=True)


def fetch_file(path: Path) -> None:
    """The same for a single file."""
    mirror = mirror_of(path)
    if mirror is None:
        return
    with _told(mirror):
        info = _info(mirror)
        if info is not None and not _same(path, info):
            _download(mirror, path, info)
    if info is None:
        path.unlink(missing_ok=True)


def names_in(folder: Path) -> list[str]:
    """Names of the folders in a folder."""
    mirror = mirror_of(folder)
    if mirror is None:
        return sorted(path.name for path in folder.iterdir() if path.is_dir())
    # What pyarrow lists of one level of a GCS bucket lacks folders that nobody made, and nobody makes them.
    with _told(mirror):
        below = mirror.store.get_file_info(_selector(mirror, recursive=mirror.scheme == "gs"))
    names = ((info.path[len(mirror.key) :].strip("/"), info.is_file) for info in below)
    return sorted({name.partition("/")[0] for name, is_file in names if "/" in name or not is_file} - _DOTS)


def paths_below(folder: Path, *, wanted: Callable[[str], bool]) -> list[Path]:
    """The files below a folder, as its store has them.

    Args:
        wanted: of their names, which.
    """
    mirror = mirror_of(folder)
    if mirror is None:
        return sorted(path for path in folder.rglob("*") if wanted(path.name) and path.is_file())
    with _told(mirror):
        below = [folder / name for name, _ in _objects(mirror)]
    return sorted(path for path in below if wanted(path.name))


def remove(path: Path) -> None:
    """Removes a file, if it is there, and its object."""
    path.unlink(missing_ok=True)
    mirror = mirror_of(path)
    if mirror is not None and not _is_let_go(path):
        with _told(mirror):
            if _info(mirror) is not None:
                mirror.store.delete_file(mirror.key)


def remove_objects(folder: Path) -> None:
    """Removes what the store has of a folder; the files stay."""
    mirror = mirror_of(folder)
    if mirror is not None and not _is_let_go(folder):
        with _told(mirror):
            for name, _ in _objects(mirror):
                mirror.store.delete_file(_child(mirror, name).key)


def has_bucket(mirror: Mirror) -> bool:
    """Whether the bucket of an object is there; also where one may not look at it, but perhaps at what it holds.

    Raises:
        OSError: if the store cannot be reached.
    """
    from pyarrow import fs

    try:
        found: Any = mirror.first_asked.get_file_info(mirror.bucket)
    except OSError as error:
        if any(word in str(error) for word in ("ACCESS_DENIED", "403", "PERMISSION_DENIED")):
            return True
        raise
    return bool(found.type != fs.FileType.NotFound)


def size_of(path: Path) -> int | None:
    """Bytes; None where there is no such file, or object."""
    mirror = mirror_of(path)
    if mirror is None:
        return path.stat().st_size if path.is_file() else None
    with _told(mirror):
        info = _info(mirror)
    return None if info is None else int(info.size)


def total_size(folder: Path) -> int:
    """Bytes of all objects of which a folder may hold copies."""
    mirror = mirror_of(folder)
    assert mirror is not None
    with _told(mirror):
        return sum(int(info.size) for _, info in _objects(mirror))


def changed_at(path: Path) -> float | None:
    """When an object was written, in seconds by the clock of its store; None where there is none."""
    mirror = mirror_of(path)
    assert mirror is not None
    with _told(mirror):
        info = _info(mirror)
    return None if info is None else float(info.mtime_ns) / 1e9


def read_shared(path: Path) -> str:
    """The text that all nodes find there, rather than this one's copy.

    Raises:
        FileNotFoundError: if there is none.
    """
    mirror = mirror_of(path)
    if mirror is None:
        return path.read_text(encoding="utf-8")
    with _told(mirror), mirror.store.open_input_stream(mirror.key) as stream:
        return bytes(stream.read()).decode("utf-8")


@contextmanager
def _told(mirror: Mirror) -> Iterator[None]:
    """Names the object, and has what a store says count as an error of storage (`storage_error`)."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.filename == mirror.uri:
            raise
        raise OSError(errno.EIO, first_line(error), mirror.uri) from error


def _info(mirror: Mirror) -> Any:
    info = mirror.store.get_file_info(mirror.key)
    return info if info.is_file else None


def _selector(mirror: Mirror, *, recursive: bool) -> Any:
    from pyarrow import fs

    return fs.FileSelector(mirror.key, recursive=recursive, allow_not_found=True)


def _objects(mirror: Mirror) -> Iterator[tuple[str, Any]]:
    """All below a prefix, by their paths below it; none that as a path would lie elsewhere."""
    for info in mirror.store.get_file_info(_selector(mirror, recursive=True)):
        name = info.path[len(mirror.key) :].strip("/")
        if info.is_file and not _DOTS.intersection(name.split("/")):
            yield name, info


def _child(mirror: Mirror, name: str) -> Mirror:
    return Mirror(mirror.scheme, f"{mirror.key}/{name}")


def _same(path: Path, info: Any) -> bool:
    """Whether a copy has the size and the time of its object, as only `_download` sets it."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return bool(found.st_size == info.size and abs(found.st_mtime_ns - info.mtime_ns) < 1_000_000)


def _is_written_here(path: Path) -> bool:
    # events.out.tfevents.TIME.HOST.PROCESS...; a host's name may have dots as well.
    host_on = path.name.split(".", 4)[-1]
    return path.name.startswith(_EVENTS) and host_on.startswith(f"{socket.gethostname()}.") and path.exists()


def _upload(mirror: Mirror, path: Path) -> None:
    with path.open("rb") as file:
        try:
            with mirror.store.open_output_stream(mirror.key) as stream:
                while piece := file.read(16 * 2**20):
                    stream.write(piece)
        except FileNotFoundError as error:  # so GCS says that there is no such bucket
            raise OSError(errno.EIO, first_line(error), mirror.uri) from error


def _download(mirror: Mirror, path: Path, info: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.fetched")
    try:
        with mirror.store.open_input_stream(mirror.key) as stream, beside.open("wb") as file:
            while piece := stream.read(16 * 2**20):
                file.write(piece)
        is_settled = time.time() - info.mtime_ns / 1e9 > _SETTLED_AFTER_S
        written_ns = info.mtime_ns if is_settled else info.mtime_ns - _BEFORE_NS
        os.utime(beside, ns=(written_ns, written_ns))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
