"""What becomes of the files of a trial that has ended? Nothing resumes it: its checkpoints go."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from search.config import SearchConfig
from search.keep import Keeper
from search.ledger import Status, TrialRecord
from search.results import RunPaths
from trainables.checkpoint import TrialFiles
from trainables.object_store import fetch_file, paths_below, publish

# Of its time the driver gives a store so much at most: the study is sent as a whole, and grows with every trial.
_SHARE = 0.05
_UNNOTICED_S = 0.01
_log = logging.getLogger(__name__)


class EndedTrials:
    """Tidies up after trials that have ended, once the store of the run, where it has one, knows that they have."""

    def __init__(self, config: SearchConfig, paths: RunPaths) -> None:
        self._paths = paths
        self._keeper = Keeper(
            config.keep,
            metric=config.metric,
            objectives=config.objectives,
            weights=lambda number: TrialFiles(paths.trial(number)).best_weights,
            at_least=config.final.top_k,
        )
        self._untidied: list[TrialRecord] = []
        self._next_at = 0.0

    def take_up(self, records: Iterable[TrialRecord]) -> None:
        """Tidies up after trials of earlier sessions that have ended, where these were killed before they could."""
        ended = [record for record in records if record.status is not Status.RUNNING]
        self._keeper.take_up(ended)
        _remove_left_checkpoints(ended, self._paths)

    def add(self, record: TrialRecord) -> None:
        """A trial has ended. Where the store takes long its files wait for those of the next that ends."""
        self._untidied.append(record)
        if time.monotonic() >= self._next_at:
            self.tidy_up()

    def tidy_up(self) -> None:
        """Sends the study to the store, and tidies up after all trials that have ended."""
        started = time.monotonic()
        publish(self._paths.study)
        took = time.monotonic() - started
        self._next_at = started + took / _SHARE if took > _UNNOTICED_S else started
        while self._untidied:
            self._tidy(self._untidied[0])
            del self._untidied[0]

    def _tidy(self, record: TrialRecord) -> None:
        files = TrialFiles(self._paths.trial(record.number))
        fetch_file(files.recovery)
        files.remove_checkpoints()
        if files.recovery.exists():
            _log.warning("trial %d: %s", record.number, files.recovery.read_text(encoding="utf-8").strip())
        self._keeper.ended(record)


def _remove_left_checkpoints(ended: Iterable[TrialRecord], paths: RunPaths) -> None:
    """Removes the checkpoints of ended trials that a driver was killed before it could remove."""
    of_trials = {paths.trial(record.number) for record in ended}
    names = {path.name for path in TrialFiles(paths.trials).checkpoints}
    left = paths_below(paths.trials, wanted=names.__contains__)
    for trial_dir in of_trials.intersection(path.parent for path in left):
        TrialFiles(trial_dir).remove_checkpoints()
