"""Where a trial is not trained: on nodes that lack the run's folder or its images, or have others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from search.launch import TrialTask, interruption_of_files
from search.restarts import Kind
from search.results import RunPaths, write_json
from search.session import held
from search.trial_place import (
    UnfitNodeError,
    leave_place,
    recorded_fingerprint,
    require_place,
    require_recorded_images,
)
from tests.images import write_classes
from trainables.checkpoint import Attempt, TrialFiles
from trainables.config import DataConfig, TrialConfig
from trainables.data import load_data
from trainables.errors import DataError
from trainables.mirrors import local_path
from trainables.trial_state import load_task


@pytest.fixture
def images(tmp_path: Path) -> DataConfig:
    write_classes(tmp_path / "images", {"a": 8, "b": 8})
    return DataConfig(name="folder", root=str(tmp_path / "images"), image_size=8)


@pytest.fixture
def task(tmp_path: Path, images: DataConfig) -> TrialTask:
    paths = RunPaths(tmp_path / "run")
    paths.root.mkdir()
    write_json(paths.environment, {"data": {"fingerprint": load_data(images).fingerprint}})
    trial = TrialConfig(data=images, arch="small_cnn").model_dump(mode="json")
    found = recorded_fingerprint(paths)
    return TrialTask(number=0, trial_dir=str(paths.trial(0)), trial=trial, num_threads=1, fingerprint=found)


def refused(task: TrialTask, match: str) -> None:
    load_task.cache_clear()  # as in a process that begins
    with pytest.raises(UnfitNodeError, match=match) as raised:
        require_place(task)
    lost = interruption_of_files(raised.value)
    assert lost is not None, "the trial itself would count as failed"
    assert lost.kind is Kind.STORAGE


def test_where_the_run_and_its_images_are(task: TrialTask) -> None:
    require_place(task)


def test_where_the_run_is_not(task: TrialTask, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "run")
    refused(task, "run: node .+ does not see the run's folder")


def test_where_there_are_no_images(task: TrialTask, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "images")
    refused(task, "node .+: .*images: the folder of images does not exist")


def test_a_model_is_evaluated_on_the_images_of_its_run_only(tmp_path: Path, images: DataConfig) -> None:
    paths = RunPaths(tmp_path / "other")
    paths.root.mkdir()
    require_recorded_images(paths, images, "0" * 16)  # of a training that no search began
    write_json(paths.environment, {"data": {"fingerprint": "1" * 16}})
    with pytest.raises(DataError, match="the images are not those the run began with"):
        require_recorded_images(paths, images, "0" * 16)


def test_where_there_are_other_images(task: TrialTask, tmp_path: Path) -> None:
    write_classes(tmp_path / "images", {"a": 9})
    refused(task, "node .+: .*images: the images are not those the run began with")


def test_copies_of_what_a_store_keeps_leave_a_node_with_their_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISTUNE_MIRRORS", str(tmp_path))
    monkeypatch.setattr("trainables.atomic_files.publish", lambda _: None)  # there is no store
    paths = RunPaths(local_path("s3://bucket/runs/first"))
    files, curve = TrialFiles(paths.trial(0)), paths.trial(0) / "events.out.tfevents.1.host.2.0"
    copies = [*files.checkpoints, files.best_weights]
    files.trial_dir.mkdir(parents=True)
    for path in (*copies, curve):
        path.touch()
    Attempt(files)
    with held(paths):  # by a driver on this machine, which reads them
        leave_place(files.trial_dir)
        assert all(path.exists() for path in copies)
    Attempt(files)
    files.attempt.write_text("that of another process on this node")
    leave_place(files.trial_dir)
    assert all(path.exists() for path in copies)
    Attempt(files)
    leave_place(files.trial_dir)
    assert not any(path.exists() for path in copies)
    assert curve.exists()
