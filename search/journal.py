"""How do the lines of a study reach the disk? Together, where they belong together, and without being read back."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

Log = dict[str, Any]


class RunJournal(JournalFileBackend):
    """Optuna's journal file for a driver that holds its run: the same lines, in batches.

    Optuna's own writes, and waits for the disk, once for every parameter of a trial, then reads the line back; every
    question reopens the file. Here the lines of a `batch` are written in one piece at its end, so that a driver that is
    killed leaves all of them or none, and whoever asks meanwhile is answered from memory. What other programs append is
    still seen, and read before anything else is said.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._offset = 0  # of the first byte of the file that was not read
        self._in_file = 0  # logs before it
        self._recent: list[str] = []  # lines from number `_first` on, those of the open batch included
        self._first = 0
        self._batch: list[str] = []
        self._depth = 0

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Has what is written inside reach the disk together, at the end of the outermost batch."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            self._commit()

    def append_logs(self, logs: Sequence[Log]) -> None:
        """Adds lines; they are on the disk when this returns, or at the end of the batch."""
        if not self._batch:
            self._read_on()  # before it: the order in memory is to be that of the file
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        self._batch += lines
        self._recent += lines
        self._commit()

    def read_logs(self, log_number_from: int) -> Generator[Log, None, None]:
        """The logs from a number on."""
        if not self._batch:
            self._read_on()
        if log_number_from < self._first:  # another reader than the one that has the others already
            yield from super().read_logs(log_number_from)
            return
        del self._recent[: log_number_from - self._first]
        self._first = log_number_from
        for line in list(self._recent):
            yield json.loads(line)

    def _read_on(self) -> None:
        """Takes up what is new in the file."""
        if os.stat(self._path).st_size == self._offset:  # noqa: PTH116 (asked before every read and write)
            return
        logs = list(super().read_logs(self._in_file))
        self._recent += [json.dumps(log) for log in logs]
        self._stand_at(self._in_file + len(logs), self._log_number_offset[self._in_file + len(logs)])

    def _commit(self) -> None:
        """Writes the open batch, unless a larger one is open.

        Raises:
            OSError: if it cannot be written; then nothing of it is.
        """
        if self._depth or not self._batch:
            return
        lines, self._batch = self._batch, []
        piece = ("\n".join(lines) + "\n").encode("utf-8")
        self._lock.acquire()
        try:
            foreign = self._read_gap()
            self._append(piece)
        except OSError:
            del self._recent[-len(lines) :]
            self._release_if_possible()
            raise
        self._lock.release()
        self._recent += foreign
        self._stand_at(self._in_file + len(foreign) + len(lines), self._path.stat().st_size)

    def _read_gap(self) -> list[str]:
        """What another program appended while the batch was open: to us it comes after the batch.

        A last line without an end is that of a driver that was killed while it wrote, and is cut off.
        """
        with self._path.open("rb+") as file:
            file.seek(self._offset)
            *lines, rest = file.read().split(b"\n")
            if rest:
                file.truncate(file.tell() - len(rest))
        return [line.decode("utf-8") for line in lines]

    def _append(self, piece: bytes) -> None:
        # Unbuffered: of what does not fit, a buffer would write the rest when it is closed.
        with self._path.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                while piece:
                    piece = piece[file.write(piece) :]
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self._path, before)
                raise

    def _release_if_possible(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:
            return  # the disk does not even take that; the lock is broken by the next who waits for it

    def _stand_at(self, number: int, offset: int) -> None:
        self._in_file, self._offset = number, offset
        self._log_number_offset = {0: 0, number: offset}


class RunStorage(JournalStorage):
    """Optuna's storage over a journal, which finds waiting trials without a look at all that ever were.

    Optuna asks for them before every proposal. No trial becomes waiting later, so each is looked at once.
    """

    def __init__(self, journal: RunJournal) -> None:
        super().__init__(journal)
        self._waiting: dict[int, list[int]] = {}
        self._looked_at: dict[int, int] = {}

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials of a study, by number."""
        if deepcopy or states != (TrialState.WAITING,):
            return super().get_all_trials(study_id, deepcopy=deepcopy, states=states)
        with self._thread_lock:
            self._sync_with_backend()
            everything = self._replay_result._study_id_to_trial_ids[study_id]
            new = everything[self._looked_at.get(study_id, 0) :]
            self._looked_at[study_id] = len(everything)
            trials = [self._replay_result.get_trial(each) for each in [*self._waiting.get(study_id, []), *new]]
            waiting = [trial for trial in trials if trial.state is TrialState.WAITING]
            self._waiting[study_id] = [trial._trial_id for trial in waiting]
            return waiting
