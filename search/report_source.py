"""What of a run can be read again? Its files and its study, as the reports take them; nothing is written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from search.config import SearchConfig, load_search
from search.domains import Domain
from search.ledger import TrialRecord, rank
from search.results import RunPaths
from search.rungs import rung_epochs
from trainables.errors import ConfigError, VistuneError, first_line


@dataclass(frozen=True)
class ReportSource:
    """A run as its reports see it.

    Attributes:
        summary: contents of `summary.json`; empty while the run has none.
        environment: contents of `environment.json`.
        test: contents of `test/metrics.json`; None where the test split was not opened.
        start: contents of `start_from.json`; empty where it started from no earlier run.
        times: start and end of each trial that has ended, in seconds after the first trial's start. A trial starts
            when it is proposed, which may be before a worker is free.
    """

    paths: RunPaths
    config: SearchConfig
    records: tuple[TrialRecord, ...]
    summary: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    test: Mapping[str, Any] | None = None
    start: Mapping[str, Any] = field(default_factory=dict)
    times: Mapping[int, tuple[float, float]] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        return self.config.metric

    @cached_property
    def domains(self) -> Mapping[str, Domain]:
        """What is searched, in the order in which it is decided."""
        return self.config.search_space.domains

    @cached_property
    def ranked(self) -> list[TrialRecord]:
        """Trials with a score that did not fail, from best to worst."""
        usable = [record for record in self.records if record.is_usable]
        return rank(usable, metric=self.metric)

    @property
    def final(self) -> Mapping[str, Any]:
        """What the best trials reached when trained again; empty where they were not."""
        return self.summary.get("final") or {}

    @property
    def winner(self) -> TrialRecord | None:
        """The trial that was best in the final retrainings, or else in the search."""
        chosen = self.final.get("winner")
        return next((each for each in self.ranked if each.number == chosen), self.ranked[0] if self.ranked else None)

    @property
    def state(self) -> str:
        """finished, interrupted or failed; unfinished where no session has come to its end."""
        return str(self.summary.get("state", "unfinished"))

    @property
    def num_images(self) -> dict[str, int]:
        """Images of each split, as far as they are known."""
        data = self.environment.get("data", {})
        return {split: int(data[split]) for split in ("train", "val", "test") if split in data}

    @property
    def rungs(self) -> list[int]:
        """Epochs at which trials may be compared; empty for a population, whose curves are those of several trials."""
        scheduler = self.config.scheduler
        if scheduler.name == "pbt":
            return []
        return rung_epochs(
            grace_period=scheduler.grace_period,
            reduction_factor=scheduler.reduction_factor,
            max_epochs=scheduler.max_epochs,
        )

    @property
    def reduction_factor(self) -> int | None:
        """Of so many trials one goes on at each rung; None where no rungs decide."""
        scheduler = self.config.scheduler
        return scheduler.reduction_factor if scheduler.name in ("asha", "asha_promotion", "hyperband") else None


def read_source(
    paths: RunPaths, *, config: SearchConfig | None = None, records: list[TrialRecord] | None = None
) -> ReportSource:
    """Everything of a run that its reports need.

    Args:
        config: read from the run's folder by default.
        records: read from the run's study by default.

    Raises:
        ConfigError: naming a file of the run that cannot be read.
    """
    config = config or load_search(paths.config)
    trials = read_trials(paths).trials
    try:
        records = records if records is not None else records_of(trials, config)
        times = _times(trials)
    except VistuneError:
        raise
    except Exception as error:
        raise _damaged(paths.study, error) from error
    return ReportSource(
        paths=paths,
        config=config,
        records=tuple(records),
        summary=read_json(paths.summary) or {},
        environment=read_json(paths.environment) or {},
        test=read_json(paths.test / "metrics.json"),
        start=read_json(paths.start_from) or {},
        times=times,
    )


@dataclass(frozen=True)
class Study:
    """What a run's study holds: its Optuna trials, and what is kept of the study as a whole."""

    trials: list[Any] = field(default_factory=list)
    user_attrs: Mapping[str, Any] = field(default_factory=dict)


def read_trials(paths: RunPaths) -> Study:
    """The run's study; an empty one where there is none yet.

    Raises:
        ConfigError: if it cannot be read.
    """
    if not paths.study.is_file():  # Optuna would make one
        return Study()
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        storage = JournalStorage(JournalFileBackend(str(paths.study)))
        studies = storage.get_all_studies()
        if not studies:
            return Study()
        trials = list(storage.get_all_trials(studies[0]._study_id, deepcopy=False))
        return Study(trials=trials, user_attrs=studies[0].user_attrs)
    except Exception as error:  # Optuna replays what it reads: of changed lines it may raise anything
        raise _damaged(paths.study, error) from error


def check_lines(study: Path) -> None:
    """A look at every line of a study, in a hundredth of the time that reading it takes.

    Raises:
        ConfigError: if one is none of a study, or the file is not there.
    """
    try:
        *lines, _ = study.read_bytes().split(b"\n")  # the last has no end where a driver was killed while it wrote it
        for line in lines:
            json.loads(line)
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(study, error) from error


def records_of(trials: list[Any], config: SearchConfig) -> list[TrialRecord]:
    """The trials of a study that were run, as records."""
    from search.study import record_of, was_run

    return [record_of(trial, metric=config.metric, space=config.search_space) for trial in trials if was_run(trial)]


def taken_over(trials: list[Any]) -> int:
    """How many trials of a study are those of earlier runs from which it started."""
    from search.trial_attrs import EARLIER

    return sum(EARLIER in trial.user_attrs for trial in trials)


def refusals(trials: list[Any]) -> dict[str, int]:
    """How many proposals of a study exceeded each limit; one that exceeds two counts for both."""
    from search.trial_attrs import NOT_RUN

    counts: Counter[str] = Counter()
    for trial in trials:
        kind, _, over = str(trial.user_attrs.get(NOT_RUN, "")).partition(": ")
        if kind == "limit":
            counts.update(each.split()[0] for each in over.split("; "))
    return dict(counts)


def _times(trials: list[Any]) -> dict[int, tuple[float, float]]:
    from search.trial_attrs import EARLIER

    ended = [
        trial
        for trial in trials
        if trial.datetime_start is not None and trial.datetime_complete is not None and EARLIER not in trial.user_attrs
    ]
    if not ended:
        return {}
    zero = min(trial.datetime_start for trial in ended)
    return {
        trial.number: (
            (trial.datetime_start - zero).total_seconds(),
            (trial.datetime_complete - zero).total_seconds(),
        )
        for trial in ended
    }


def _damaged(study: Path, error: Exception) -> ConfigError:
    return ConfigError(f"{study}: cannot be read as a study ({first_line(error)}); restore it from a copy")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file of a run; None where there is no such file.

    Raises:
        ConfigError: if it holds anything else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read ({first_line(error)}); restore it from a copy") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: must hold a JSON object, found {type(value).__name__}; restore it from a copy")
    return value
