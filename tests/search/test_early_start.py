"""A free actor goes on at once: it is kept, and trains its next trial before Tune asks for another proposal."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.tune
from ray.tune.search import Searcher

from search.early_start import EarlyStart
from search.tune_shortcuts import shortened

pytestmark = pytest.mark.ray
SLOTS, TRIALS = 2, 8


@pytest.fixture(autouse=True)
def local_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings = {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "TUNE_MAX_PENDING_TRIALS_PG": "64",  # as in a search: Tune asks on though a trial waits
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    ray.init("local", num_cpus=SLOTS, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


class WaitsForTheOneBefore(Searcher):  # type: ignore[misc]
    """Proposes one trial more than run, and each only after the one before has begun, or after half a minute."""

    def __init__(self, folder: Path) -> None:
        super().__init__(metric="score", mode="max")
        self.begun_in_time: list[bool] = []
        self._folder = folder
        self._num = 0
        self._live: set[str] = set()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._num == TRIALS:
            return str(Searcher.FINISHED)
        if len(self._live) > SLOTS:
            return None
        if self._num > SLOTS:
            self.begun_in_time.append(self._has_begun(self._num - 1))
        self._live.add(trial_id)
        self._num += 1
        return {"number": self._num - 1}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        del result, error
        self._live.discard(trial_id)

    def _has_begun(self, number: int) -> bool:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            if (self._folder / str(number)).exists():
                return True
            time.sleep(0.01)
        return False


def test_a_free_actor_does_not_wait_for_a_proposal(tmp_path: Path) -> None:
    folder = tmp_path / "begun"
    folder.mkdir()

    def trial(config: dict[str, Any]) -> None:
        (folder / str(config["number"])).write_text(str(os.getpid()), encoding="utf-8")
        while not all((folder / str(slot)).exists() for slot in range(SLOTS)):
            time.sleep(0.01)  # until all actors are there, so that the next trial waits for a free one
        for epoch in range(2):
            ray.tune.report({"score": config["number"], "done": epoch == 1})

    trial.__mixins__ = (EarlyStart,)  # type: ignore[attr-defined]
    searcher = WaitsForTheOneBefore(folder)
    tuner = ray.tune.Tuner(
        ray.tune.with_resources(trial, {"CPU": 1}),
        tune_config=ray.tune.TuneConfig(search_alg=searcher, num_samples=-1, reuse_actors=True),
        run_config=ray.tune.RunConfig(name="tune", storage_path=str(tmp_path), verbose=0),
    )
    with shortened(lambda: SLOTS):
        results = tuner.fit()
    assert len({path.read_text(encoding="utf-8") for path in folder.iterdir()}) == SLOTS
    assert searcher.begun_in_time == [True] * (TRIALS - SLOTS - 1)
    assert sorted(result.metrics["score"] for result in results) == list(range(TRIALS))
    assert {result.metrics["training_iteration"] for result in results} == {2}
