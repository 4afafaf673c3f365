"""Runs of the command line, as a person starts them: in a process of their own, with a space file of their own."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

TIMEOUT_S = 300

TINY: dict[str, Any] = {
    "task": {"data": {"name": "digits"}},
    "space": {
        "arch": "small_cnn",
        "lr": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True},
        "batch_size": {"type": "categorical", "values": [64, 128]},
    },
    "scheduler": {"max_epochs": 3, "grace_period": 1, "reduction_factor": 2},
    "budget": {"trials": 4},
}


def write_space(folder: Path, **sections: Any) -> Path:
    """TINY with some sections replaced, as a file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump({**TINY, **sections}, sort_keys=False))
    return path


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """Starts `python -m search.run` and returns at once."""
    command = [sys.executable, "-m", "search.run", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit status, output and error output of a whole run."""
    return finish(start(*arguments))


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        raise
    return process.returncode, out, err


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 120.0, every_s: float = 0.1) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(every_s)


def trials_of(run_dir: Path) -> list[optuna.trial.FrozenTrial]:
    """The run's study, read as any other program would."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = run_dir / "study.log"
    if not journal.exists():
        return []
    studies = optuna.get_all_study_summaries(JournalStorage(JournalFileBackend(str(journal))))
    if not studies:
        return []
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return optuna.load_study(study_name=studies[0].study_name, storage=storage).get_trials()


def leaderboard_of(run_dir: Path) -> dict[int, dict[str, str]]:
    """Rows of a run's leaderboard by trial number, from best to worst."""
    with (run_dir / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        return {int(row["trial"]): row for row in csv.DictReader(file)}


def summary_of(run_dir: Path) -> Mapping[str, Any]:
    return json.loads((run_dir / "summary.json").read_text())
