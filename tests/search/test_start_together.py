"""Processes of trials start beside each other: a cluster is not filled by one after the other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from optuna.storages.journal._storage import JournalOperation

from tests.search.cli import run, write_space

AT_A_TIME = 4


@pytest.mark.ray
def test_all_trials_that_fit_start_before_the_first_has_trained_an_epoch(tmp_path: Path) -> None:
    path = write_space(
        tmp_path,
        scheduler={"name": "none", "max_epochs": 2},
        budget={"trials": AT_A_TIME},
        resources={"trials_per_device": 2, "max_concurrent_trials": AT_A_TIME},
        final={"top_k": 1, "seeds": 1},
    )
    status, out, err = run(path, "--name", "run", "--storage-path", tmp_path)
    assert (status, err) == (0, ""), out
    written = [json.loads(line)["op_code"] for line in (tmp_path / "run" / "study.log").read_text().splitlines()]
    first_epoch = written.index(JournalOperation.SET_TRIAL_INTERMEDIATE_VALUE)
    assert written[:first_epoch].count(JournalOperation.CREATE_TRIAL) == AT_A_TIME
