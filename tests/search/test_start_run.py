"""Whole searches of which the second starts from the first, as a person runs them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from search.list import list_runs
from search.results import RunPaths
from search.trial_attrs import EARLIER
from tests.search.cli import TINY, leaderboard_of, run, summary_of, trials_of, write_space

WIDER: dict[str, Any] = {
    **TINY["space"],
    "batch_size": {"type": "categorical", "values": [64, 256]},
    "dropout": {"type": "float", "low": 0.0, "high": 0.5},
}


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_starts_from_an_earlier_one_and_goes_on_without_it(tmp_path: Path) -> None:
    results = tmp_path / "results"
    one_at_a_time = {"resources": {"max_concurrent_trials": 1}}
    status, _, err = run(write_space(tmp_path / "a", **one_at_a_time), "--name", "first", "--storage-path", results)
    assert status == 0, err
    starts = [{"run": str(results / "first")}]
    space = write_space(tmp_path / "b", space=WIDER, start_from=starts, budget={"trials": 2}, **one_at_a_time)

    status, shown, err = run(space, "--dry-run", "--storage-path", results)
    assert status == 0, err
    status, out, err = run(space, "--name", "second", "--storage-path", results)
    assert status == 0, err
    paths = RunPaths(results / "second")
    (taken,) = json.loads(paths.start_from.read_text())["runs"]
    carried, total = taken["carried"], taken["trials"]
    assert (total, carried > 0) == (4, True)
    assert f"first: {carried} of 4 trials carried over; the best is run again first" in out
    assert "parameters: searched here and not there: dropout" in out
    for line in taken["lines"]:
        assert line in out
        assert line in shown
        assert line in paths.log.read_text(encoding="utf-8")

    known = [trial for trial in trials_of(paths.root) if EARLIER in trial.user_attrs]
    assert len(known) == carried
    best = max(known, key=lambda trial: trial.value or 0.0)
    own = leaderboard_of(paths.root)
    assert sorted(own) == [carried, carried + 1]
    assert float(own[carried]["lr"]) == pytest.approx(best.params["lr"], rel=1e-5)
    # It is trained to its end, on the same seed, so that it comes to at least what it came to there.
    assert float(own[carried]["val_top1"]) >= (best.value or 0.0) - 1e-6
    assert sum(summary_of(paths.root)["trials"].values()) == 2
    assert {line.name: line.trials for line in list_runs(results)} == {"first": 4, "second": 2}

    shutil.rmtree(results / "first")
    status, out, err = run("--resume", "second", "--storage-path", results, "--extend", "+1")
    assert status == 0, err
    assert sorted(leaderboard_of(paths.root)) == [carried, carried + 1, carried + 2]
    assert sum(EARLIER in trial.user_attrs for trial in trials_of(paths.root)) == carried
    status, _, err = run(space, "--name", "third", "--storage-path", results)
    assert status == 2
    assert err.startswith("start_from.0.run: no such run, found ")
    assert not (results / "third").exists()
