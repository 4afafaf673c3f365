"""The best trials trained again, the winner tested once with every seed, and trained again by anyone."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from statistics import mean

import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from search.config import load_search
from search.final import mean_interval
from search.ledger import Status, TrialRecord
from search.reproduce import reproduction
from search.results import RunPaths
from search.study import StudyStore
from tests.search.cli import TINY, leaderboard_of, run, write_space
from trainables.checkpoint import load_weights

SPACE = {
    "arch": "small_cnn",
    "optimizer": {"type": "categorical", "values": ["adamw", "sgd"]},
    "momentum": 0.9,
    "augment": {"type": "categorical", "values": ["none", "gentle"]},
    "batch_size": 64,
    "lr": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True, "scaled_by": "batch_size"},
}
PIPELINES = {"gentle": [{"Affine": {"rotate": {"type": "float", "low": 0, "high": 15}}}]}


def curves(paths: RunPaths) -> dict[int, dict[int, float]]:
    config = load_search(paths.config)
    store = StudyStore(
        paths.study, name=paths.name, metric="val_loss", sampler=config.sampler, space=config.search_space
    )
    return {trial.number: dict(trial.intermediate_values) for trial in store.trials()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    folder = tmp_path_factory.mktemp("runs")
    space = write_space(
        folder,
        task={**TINY["task"], "metric": "val_loss"},
        space=SPACE,
        augmentations=PIPELINES,
        sampler={"seed": 3},
        budget={"trials": 4},
        final={"top_k": 2, "seeds": 2},
        resources={"max_concurrent_trials": 1},
    )
    status, out, err = run(space, "--name", "a", "--storage-path", folder)
    assert status == 0, err
    assert "trained again" in out
    return RunPaths(folder / "a")


@pytest.mark.ray
@pytest.mark.slow
def test_the_mean_of_other_seeds_picks_the_winner(finished: RunPaths) -> None:
    summary = json.loads(finished.summary.read_text())
    final = summary["final"]
    ranked = list(leaderboard_of(finished.root))
    assert [each["trial"] for each in final["candidates"]] == ranked[:2]
    assert all(each["seeds"] == [4, 5] and len(each["scores"]) == 2 for each in final["candidates"])
    best = min(final["candidates"], key=lambda each: mean(each["scores"]))
    assert final["winner"] == best["trial"] == summary["test"]["trial"]
    tested = summary["test"]["retrained"]
    assert final["tests"] == [each["loss"] for each in tested]
    assert final["optimism_gap"] == pytest.approx(mean(final["tests"]) - best["search_score"])
    assert final["selection_gap"] == pytest.approx(mean(best["scores"]) - best["search_score"])
    center, low, high = final["test_interval"]
    assert low < center < high
    model = json.loads((finished.best_model / "model.json").read_text())["trial"]
    assert (model["seed"], model["refit_epochs"]) == (4, final["refit_epochs"])
    assert summary["test"]["loss"] == final["tests"][0]  # of the exported model
    page = finished.report.read_text()
    assert "Final retrainings" in page
    assert f"trial {final['winner']} was chosen" in page


@pytest.mark.ray
@pytest.mark.slow
def test_no_more_trainings_at_a_time_than_the_search_may_have(finished: RunPaths) -> None:
    spans = []
    for folder in finished.final.iterdir():
        events = [each for path in folder.glob("events.*") for each in EventFileLoader(str(path)).Load()]
        times = [event.wall_time for event in events if event.HasField("summary")]
        spans.append((min(times), max(times)))
    spans.sort()
    assert len(spans) == 6
    assert all(ended <= begins for (_, ended), (begins, _) in itertools.pairwise(spans))


@pytest.mark.ray
@pytest.mark.slow
def test_a_resume_trains_and_tests_nothing_again(finished: RunPaths) -> None:
    kept = {path: path.read_bytes() for path in finished.final.glob("*/best.safetensors")}
    assert len(kept) == 6  # two candidates and the winner's last training, with two seeds each
    times = {path: path.stat().st_mtime_ns for path in kept}
    before = (finished.test / "metrics.json").stat().st_mtime_ns
    status, _, err = run("--resume", finished.name, "--storage-path", finished.root.parent)
    assert status == 0, err
    assert {path: path.stat().st_mtime_ns for path in kept} == times
    assert (finished.test / "metrics.json").stat().st_mtime_ns == before


@pytest.mark.ray
@pytest.mark.slow
def test_the_winner_is_trained_again_bit_for_bit(finished: RunPaths) -> None:
    winner = json.loads(finished.summary.read_text())["final"]["winner"]
    status, _, err = run(finished.reproduce, "--name", "again", "--storage-path", finished.root.parent)
    assert status == 0, err
    original, again = curves(finished)[winner], curves(RunPaths(finished.root.parent / "again"))[0]
    assert original == {epoch: again[epoch] for epoch in original}
    assert len(again) == load_search(finished.config).scheduler.max_epochs
    repeated = RunPaths(finished.root.parent / "again")
    delivered = load_weights(finished.best_model / "model.safetensors")
    assert all(torch.equal(tensor, delivered[name]) for name, tensor in
               load_weights(repeated.best_model / "model.safetensors").items())  # fmt: skip
    tests = [json.loads(paths.summary.read_text())["final"]["tests"] for paths in (finished, repeated)]
    assert tests[0] == tests[1]


def test_a_reproduction_says_what_matters_and_no_more(tmp_path: Path) -> None:
    config = load_search(write_space(tmp_path, space=SPACE, augmentations=PIPELINES))
    params = {"optimizer": "adamw", "augment": "gentle", "lr": 4e-3, "augmentations.gentle.Affine.rotate": 7.5}
    winner = TrialRecord(number=3, params=params, status=Status.COMPLETED, score=0.9, best_epoch=2)
    found = reproduction(config, winner, name="again")
    assert found.search_space.searched == ()
    assert found.trial_config({}) == config.trial_config(params)
    assert "momentum" not in found.space  # without effect beside adamw
    assert found.augmentations == {"gentle": ({"Affine": {"rotate": 7.5}},)}


def test_interval_of_the_mean_is_students() -> None:
    assert mean_interval([0.5], most=1.0) is None
    assert mean_interval([0.1, 0.2, 0.3], most=1.0) == pytest.approx((0.2, 0.0, 0.4484), abs=1e-4)
    assert mean_interval([0.9, 1.0], most=1.0) == pytest.approx((0.95, 0.3147, 1.0), abs=1e-4)
