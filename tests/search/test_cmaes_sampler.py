"""The state of CMA-ES in a study: read back without running code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import optuna
import pytest

from search.cmaes_sampler import WarmCmaEs
from tests.search.test_samplers import Session, search


def sampler() -> WarmCmaEs:
    return WarmCmaEs([], seed=0, startup_trials=3)


def test_the_state_in_a_study_is_that_of_optuna(tmp_path: Path) -> None:
    session = Session(tmp_path, search("cmaes"))
    session.run(30)
    trials = session.store.trials()
    found, known = (each._restore_optimizer(trials) for each in (sampler(), optuna.samplers.CmaEsSampler()))
    assert found is not None and known is not None
    assert found.generation == known.generation > 0
    assert np.array_equal(found.mean, known.mean)
    assert np.array_equal(found._C, known._C)


class Code:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("state", [None, "no hexadecimal digits", "80"])
def test_another_state_is_passed_over(tmp_path: Path, state: str | None, caplog: pytest.LogCaptureFixture) -> None:
    marker = tmp_path / "ran"
    text = pickle.dumps(Code(marker)).hex() if state is None else state
    stored = {f"{sampler()._attr_key_optimizer}:0": text}
    trial = optuna.trial.create_trial(value=1.0, system_attrs=stored)
    assert sampler()._restore_optimizer([trial]) is None
    assert not marker.exists()
    assert "is passed over: " in caplog.text
