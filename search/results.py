"""Where does everything of a run lie? Every path is a named property of one object."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

from trainables.atomic_files import write_beside

# What a run may be called: a folder inside the folder of runs.
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def dated_name(base: str) -> str:
    """The name of a run that was given none: that of its space, and the time."""
    return f"{base}-{datetime.now():%Y%m%d-%H%M%S}"


class RunPaths:
    """The files of one run, all inside `results/<run>/`."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def config(self) -> Path:
        """The search as it was resolved: the YAML with every default and override filled in."""
        return self.root / "config.yaml"

    @property
    def environment(self) -> Path:
        """What identifies the run: commit, versions, data fingerprint, seeds, hardware."""
        return self.root / "environment.json"

    @property
    def splits(self) -> Path:
        """Which image belongs to which split."""
        return self.root / "splits.csv"

    @property
    def start_from(self) -> Path:
        """What the search knew of earlier runs when it began; only where it started from some."""
        return self.root / "start_from.json"

    @property
    def study(self) -> Path:
        """The Optuna study, an append-only journal; the run's single source of truth."""
        return self.root / "study.log"

    @property
    def lock(self) -> Path:
        """Held by the driver while it runs, so that two do not drive the same run."""
        return self.root / ".lock"

    @property
    def leaderboard(self) -> Path:
        return self.root / "leaderboard.csv"

    @property
    def summary(self) -> Path:
        return self.root / "summary.json"

    @property
    def trials(self) -> Path:
        """A folder a trial: TensorBoard events, checkpoint, best weights."""
        return self.root / "trials"

    @property
    def report(self) -> Path:
        """What was found, as one page that opens anywhere."""
        return self.root / "report.html"

    @property
    def augmentation(self) -> Path:
        """Samples of every augmentation of the space, as a picture."""
        return self.root / "augmentation.png"

    def trial(self, number: int) -> Path:
        return self.trials / f"{number:04d}"

    @property
    def best_model(self) -> Path:
        """The winner: weights, and what is needed to use them."""
        return self.root / "best_model"

    @property
    def test(self) -> Path:
        """The winner's one evaluation on the test split."""
        return self.root / "test"

    @property
    def final(self) -> Path:
        """The best trials trained again, a folder a training."""
        return self.root / "final"

    @property
    def reproduce(self) -> Path:
        """The winner as a space file of its own, with which it can be trained again."""
        return self.root / "reproduce.yaml"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def log(self) -> Path:
        """vistune's own log and all that Ray and Optuna print."""
        return self.logs / "search.log"

    @property
    def tune(self) -> Path:
        """Ray Tune's scratch folder; nothing in it is ever read back, and it goes when the run ends."""
        return self.root / "logs" / "tune"


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically, with a final newline."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(path, text.encode("utf-8", "backslashreplace"))  # of names that are no UTF-8: as JSON escapes them


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically, as UTF-8; names of files that are none keep the bytes they have."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically: a reader finds the old one or the new one."""
    write_beside(path, lambda temporary: temporary.write_bytes(content))
