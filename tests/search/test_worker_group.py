"""One Ray Train worker group, trial after trial: each as on a group of its own."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.util import placement_group_table
from safetensors.torch import load_file

from search.interruptions import interruption_of
from search.launch import TrialTask
from search.resources_config import ResourcesConfig
from search.restarts import Kind
from search.results import RunPaths
from search.tuner import start_ray
from search.worker_group import WorkerGroup
from tests.search.cli import wait_until
from tests.search.test_losses import processes
from trainables.checkpoint import TrialFiles
from trainables.config import DataConfig, TrialConfig
from trainables.errors import DivergedError

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

RESOURCES = ResourcesConfig.model_validate({"workers": 2})
TIMES = {"images_per_s", "train_s", "read_s", "val_s"}


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    start_ray()
    yield
    ray.shutdown()


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    return run_paths(tmp_path)


@pytest.fixture
def form(paths: RunPaths) -> Iterator[Callable[[], WorkerGroup]]:
    """Forms groups, which end with the test."""
    formed: list[WorkerGroup] = []

    def form() -> WorkerGroup:
        formed.append(WorkerGroup(2, RESOURCES, scratch=str(paths.tune)))
        return formed[-1]

    yield form
    for group in formed:
        group.close()


def run_paths(folder: Path) -> RunPaths:
    """A run that has begun, as far as trials look."""
    paths = RunPaths(folder / "run")
    paths.root.mkdir(parents=True)
    paths.environment.touch()
    return paths


def task(paths: RunPaths, number: int, **changes: Any) -> TrialTask:
    base = {"data": DataConfig(name="digits"), "arch": "small_cnn", "max_epochs": 2, "batch_size": 64, "lr": 3e-3}
    trial = TrialConfig.model_validate({**base, "augment": "randaugment", "dropout": 0.3, **changes})
    return TrialTask(
        number=number,
        trial_dir=str(paths.trial(number)),
        trial=trial.model_dump(mode="json"),
        num_threads=1,
        workers=2,
    )


def trained(group: WorkerGroup, asked: TrialTask) -> list[dict[str, Any]]:
    """The metrics of every epoch, without times."""
    reported: list[Mapping[str, Any]] = []
    group.train(asked, report=reported.append)
    return [{name: value for name, value in each.items() if name not in TIMES} for each in reported]


def stop(metrics: Mapping[str, Any]) -> None:
    raise SystemExit(f"stopped at epoch {metrics['epoch']}")


def is_free() -> bool:
    return all(group["state"] == "REMOVED" for group in placement_group_table().values())


def test_a_later_trial_trains_as_on_a_group_of_its_own(paths: RunPaths, form: Callable[[], WorkerGroup]) -> None:
    used = form()
    trained(used, task(paths, 0, arch="cnn", seed=5, optimizer="sgd"))
    with pytest.raises(SystemExit, match="stopped at epoch 1"):  # as Tune does where the scheduler says so
        used.train(task(paths, 1), report=stop)
    with pytest.raises(DivergedError):
        used.train(task(paths, 2, optimizer="sgd", lr=10.0, weight_decay=1.0), report=lambda _: None)
    after = trained(used, task(paths, 3))
    assert not used.is_over
    used.close()
    assert used.is_over and is_free()

    assert trained(form(), task(paths, 4)) == after
    later, first = (load_file(TrialFiles(paths.trial(number)).best_weights) for number in (3, 4))
    assert later.keys() == first.keys() and all(torch.equal(later[name], first[name]) for name in later)
    assert [each["done"] for each in after] == [False, True]


@pytest.mark.parametrize("victim", ["RayTrainWorker", "Mailbox"])
def test_a_group_that_lost_a_process_is_over_and_says_why(
    paths: RunPaths, form: Callable[[], WorkerGroup], victim: str
) -> None:
    group = form()

    def kill_one(metrics: Mapping[str, Any]) -> None:
        del metrics
        os.kill(processes(os.getpid(), named=victim)[-1], signal.SIGKILL)

    with pytest.raises(Exception) as raised:
        group.train(task(paths, 0, max_epochs=50), report=kill_one)
    found = interruption_of(raised.value, in_group=True)
    assert found is not None and found.kind is Kind.LOST, repr(raised.value)
    assert group.is_over  # at once, or every attempt in between would count as one more loss
    wait_until(is_free)


def test_a_group_that_loses_a_process_while_it_forms_is_formed_again(
    paths: RunPaths, form: Callable[[], WorkerGroup]
) -> None:
    def kill_the_first() -> None:
        wait_until(lambda: bool(processes(os.getpid(), named="RayTrainWorker")), every_s=0.02)
        os.kill(processes(os.getpid(), named="RayTrainWorker")[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    group = form()
    reported = trained(group, task(paths, 0))
    killer.join()
    assert [each["epoch"] for each in reported] == [1, 2]
    group.close()
    wait_until(is_free)
