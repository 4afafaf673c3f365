"""What worker groups hold that did not come to an end of their own."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray._private.state import state as ray_state
from ray.train.v2._internal.callbacks import placement_group_callback
from ray.train.v2._internal.execution.worker_group import worker_group

from search.group_starts import FreesAndGoes, FreesFailedStarts
from search.results import RunPaths
from search.tuner import start_ray
from search.worker_group import Mailbox, WorkerGroup
from tests.search.cli import wait_until
from tests.search.test_worker_group import RESOURCES, is_free, run_paths, task, trained

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    start_ray()
    yield
    ray.shutdown()


def test_what_an_attempt_to_form_a_group_holds_is_freed_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_group, "placement_group", worker_group.placement_group)  # put back afterwards
    frees = FreesFailedStarts("companion")
    frees.before_worker_group_start(None)
    first = worker_group.placement_group([{"CPU": 1.0}])
    assert first.wait(30)
    frees.before_worker_group_start(None)
    wait_until(is_free)
    second = worker_group.placement_group([{"CPU": 1.0}])
    assert second.wait(30)
    frees.before_worker_group_start(None)
    wait_until(is_free)


@ray.remote(num_cpus=0)
class Controller:
    """As far as it has come when the first node of its group is lost."""

    def hold(self, companion: str) -> bool:
        FreesFailedStarts(companion).before_worker_group_start(None)
        return bool(worker_group.placement_group([{"CPU": 1.0}] * 2).wait(30))


@ray.remote(num_cpus=0)
class LostController:
    """Lost before its cleaner is asked to watch it."""

    def begin(self) -> None:
        pickle.loads(pickle.dumps(FreesFailedStarts("companion")))
        own_id = ray.get_runtime_context().get_actor_id()
        cleaner = ray.remote(num_cpus=0)(placement_group_callback.PlacementGroupCleaner).options(lifetime="detached")
        self.cleaner = cleaner.remote(own_id, check_interval_s=1.0, get_actor_timeout_s=1.0, stop_timeout=4.0)
        wait_until(lambda: "ALIVE" in cleaners())
        os.kill(os.getpid(), signal.SIGKILL)


def cleaners() -> set[str]:
    """States of the actors that free placement groups."""
    known = ray_state.actor_table(None).values()
    return {actor["State"] for actor in known if actor["ActorClassName"].endswith(FreesAndGoes.__name__)}


def test_the_cleaner_of_a_lost_controller_goes() -> None:
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(LostController.remote().begin.remote())  # type: ignore[attr-defined]
    wait_until(lambda: cleaners() == {"DEAD"})


@ray.remote(num_cpus=0)
class Driver:
    def begin(self) -> bool:
        self.companion = ray.remote(Mailbox).options(num_cpus=0).remote()
        self.controller = Controller.remote()
        return bool(ray.get(self.controller.hold.remote(self.companion._actor_id.hex())))


@ray.remote(num_cpus=0)
class Trainer:
    def train(self, paths: RunPaths) -> None:
        self.group = WorkerGroup(2, RESOURCES, scratch=str(paths.tune))
        trained(self.group, task(paths, 0))


@pytest.mark.parametrize("formed", [False, True])
def test_a_driver_that_is_lost_does_not_block_the_next(tmp_path: Path, *, formed: bool) -> None:
    paths = run_paths(tmp_path)
    driver = Trainer.remote() if formed else Driver.remote()  # type: ignore[attr-defined]
    assert ray.get(driver.train.remote(paths) if formed else driver.begin.remote()) is not False
    assert not is_free()
    ray.kill(driver)
    group = WorkerGroup(2, RESOURCES, scratch=str(paths.tune))
    reported = trained(group, task(paths, 1))
    assert [each["epoch"] for each in reported] == [1, 2]
    group.close()
    wait_until(is_free)
