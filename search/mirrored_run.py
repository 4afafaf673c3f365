"""How does the driver of a run in an object store keep the store up to date, and other drivers off the run?

What is written whole (configuration, weights, reports) follows at once, by `trainables.object_store`. The study and the
log grow; they follow every few seconds, and the study before the checkpoints of ended trials go
(`search.ended_trials`).
"""

from __future__ import annotations

import fcntl
import json
import logging
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from search.results import RunPaths, write_json
from trainables.errors import ConfigError, SupersededError
from trainables.mirrors import mirror_of, shown
from trainables.object_store import (
    changed_at,
    fetch,
    let_go,
    publish,
    publish_folder,
    read_shared,
    remove,
    remove_objects,
    size_of,
    take_hold,
)

_EVERY_S = 10.0
# A driver that has not been heard of for so long is taken for gone.
_GONE_AFTER_S = 60.0
_LOOK_EVERY_S = 2.0
# From a look at who drives a run to the writing of a hold a driver takes less than this.
_SETTLED_AFTER_S = 2.0
_HOLD = "driver.json"
_OF_TRIALS = ("trials/", "final/")
_log = logging.getLogger(__name__)


def is_there(paths: RunPaths) -> bool:
    """Whether there is a run of this name."""
    return paths.root.exists() if mirror_of(paths.root) is None else size_of(paths.config) is not None


def is_held_here(paths: RunPaths) -> bool:
    """Whether a process on this machine drives the run; asks for a shared hold, which is given back at once."""
    if not paths.lock.is_file():
        return False
    with paths.lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def fetch_run(paths: RunPaths) -> None:
    """Has the copy of a run hold what its store has, but for what trials have written.

    The copy of a driver on this machine is ahead of the store, and stays as it is.
    """
    if mirror_of(paths.root) is None or is_held_here(paths):
        return
    if is_there(paths):
        _fetch_all(paths)
    elif paths.config.is_file():  # a copy of a run that is no more, and not perhaps of a folder of runs
        shutil.rmtree(paths.root, ignore_errors=True)


def _fetch_all(paths: RunPaths) -> None:
    fetch(paths.root, wanted=lambda name: not name.startswith(_OF_TRIALS))


def _begin_anew(paths: RunPaths) -> None:
    """Removes what there is of a run that the store has not; the lock, which this driver holds, stays."""
    for path in paths.root.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path != paths.lock:
            path.unlink(missing_ok=True)


def fetch_summary(paths: RunPaths) -> None:
    """Has the copy hold what says how a run is; that of a driver on this machine does."""
    if not is_held_here(paths):
        own = {path.name for path in (paths.config, paths.summary, paths.environment, paths.study)}
        fetch(paths.root, wanted=own.__contains__)


def is_driven(paths: RunPaths) -> bool:
    """Whether a driver has been heard of lately."""
    return _Hold(paths.root / _HOLD).is_others()


def fetch_curves(paths: RunPaths) -> None:
    """Has the copy hold what TensorBoard reads."""
    fetch(paths.trials, wanted=lambda name: Path(name).name.startswith("events."))


def fetch_found(paths: RunPaths) -> None:
    """Has the copy hold what was made where trials run: the best model, its evaluation, the retrained ones."""
    for folder in (paths.best_model, paths.test):
        fetch(folder)
    fetch(paths.final, wanted=lambda name: not Path(name).name.startswith("checkpoint."))


def remove_run(paths: RunPaths) -> None:
    """Removes a run, its copy and all that the store has of it."""
    shutil.rmtree(paths.root, ignore_errors=True)
    remove_objects(paths.root)


@contextmanager
def followed(paths: RunPaths, *, on_lost: Callable[[], None] = lambda: None) -> Iterator[None]:
    """The run is this driver's for as long as this lasts, and its store is up to date at the end.

    Args:
        on_lost: called from another thread when the store was out of reach for so long that another driver has taken
            the run over; nothing more is sent there from here.

    Raises:
        ConfigError: if another driver holds the run.
        OSError: if the store cannot be written at the end.
    """
    if mirror_of(paths.root) is None:
        yield
        return
    hold = _Hold(paths.root / _HOLD)
    take_hold(paths.root)
    hold.take()
    (_fetch_all if is_there(paths) else _begin_anew)(paths)
    ended = threading.Event()
    # Each in a thread of its own: what is sent and fetched may take longer than a driver may be silent.
    threads = [
        threading.Thread(target=_hold_on, args=(paths, hold, ended, on_lost), daemon=True),
        threading.Thread(target=_follow, args=(paths, hold, ended), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        if not hold.is_lost:
            for path in (paths.study, paths.log):  # neither is there after a false start
                publish(path)
            publish_folder(paths.trials / "augmentation")
            hold.release()


def _hold_on(paths: RunPaths, hold: _Hold, ended: threading.Event, on_lost: Callable[[], None]) -> None:
    while not ended.wait(_EVERY_S):
        try:
            hold.renew()
        except SupersededError as error:
            _log.error("%s", error)
            let_go(paths.root)
            on_lost()
            return
        except OSError as error:
            _log.warning("%s: cannot say that it is driven for now (%s)", shown(paths.root), error)


def _follow(paths: RunPaths, hold: _Hold, ended: threading.Event) -> None:
    while not ended.wait(_EVERY_S) and not hold.is_lost:
        try:
            publish(paths.study)
            publish(paths.log)
            fetch_curves(paths)
        except OSError as error:  # the next time it may be there again; what a trial needs, it waits for itself
            _log.warning("%s: does not follow for now (%s)", shown(paths.root), error)


class _Hold:
    """An object that says who drives a run; stores have no locks, but of two writers each finds the same one's words.

    Args:
        path: of the copy of that object.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._own = uuid.uuid4().hex
        self.is_lost = False  # to another driver, as far as this one has noticed

    def take(self) -> None:
        """Waits for a driver that is no more, as one that lives is heard of again before that.

        Raises:
            ConfigError: if another drives the run.
        """
        found = changed_at(self._path)
        while self.is_others():
            time.sleep(_LOOK_EVERY_S)
            if changed_at(self._path) not in (None, found):
                raise ConfigError(self._held_by(self._read()))
        self._write()
        time.sleep(_SETTLED_AFTER_S)
        written = self._read()
        if written is not None and written["driver"] != self._own:  # both had seen no other, and it wrote later
            raise ConfigError(self._held_by(written))

    def is_others(self) -> bool:
        """Whether another driver has renewed its hold lately, by the clock of the store."""
        written = changed_at(self._path)
        if written is None:
            return False
        probe = self._path.with_name(f".now-{self._own}")
        write_json(probe, {})
        now = changed_at(probe)
        remove(probe)
        return now is None or now - written < _GONE_AFTER_S

    def renew(self) -> None:
        """Says that this driver lives.

        Raises:
            SupersededError: if another has taken its place, because this one was not heard of.
            OSError: if the store cannot be read or written.
        """
        found = self._read()
        if found is not None and found["driver"] != self._own:
            self.is_lost = True
            raise SupersededError(self._held_by(found))
        self._write()

    def release(self) -> None:
        found = self._read()
        if found is None or found["driver"] == self._own:
            remove(self._path)

    def _write(self) -> None:
        write_json(self._path, {"driver": self._own, "host": socket.gethostname()})

    def _read(self) -> dict[str, str] | None:
        """What the driver in the store says of itself; None where there is none, or what is there is no hold."""
        try:
            found = json.loads(read_shared(self._path))
            return {name: str(found[name]) for name in ("driver", "host")}
        except (FileNotFoundError, ValueError, LookupError, TypeError):
            return None

    def _held_by(self, found: dict[str, str] | None) -> str:
        host = "an unknown host" if found is None else found["host"]
        return (
            f"{shown(self._path.parent)}: another process is running this search, on {host}; wait for it, or give "
            "--name for a run of its own"
        )
