"""Section `resources`: workers by architecture, shares of GPUs, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.cluster_nodes import worker_resources
from search.config import load_search, to_yaml
from search.ledger import TrialRecord
from search.reproduce import reproduction
from search.resources_config import ResourcesConfig
from search.spending import devices_of_worker
from tests.search.space_files import refusal, search_of, space_file, write

ARCHS = "{arch: {type: categorical, values: [small_cnn, resnet18, vit_tiny_patch16_224]}, lr: 0.1}"


def test_workers_by_architecture(tmp_path: Path) -> None:
    config = search_of(tmp_path, space=ARCHS, resources="{workers: {default: 2, resnet18: 4}}")
    assert config.trial_sizes == (2, 4)
    assert config.workers_of({"arch": "resnet18"}) == 4
    assert config.workers_of({"arch": "small_cnn"}) == 2
    assert load_search(write(tmp_path, to_yaml(config), name="again.yaml")) == config


def test_an_architecture_that_is_not_searched_decides_too(tmp_path: Path) -> None:
    config = search_of(tmp_path, space="{arch: resnet18, lr: 0.1}", resources="{workers: {resnet18: 4}}")
    assert config.trial_sizes == (4,)
    assert config.workers_of({}) == 4


def test_the_winner_is_trained_again_by_as_many_workers(tmp_path: Path) -> None:
    config = search_of(tmp_path, space=ARCHS, resources="{workers: {resnet18: 4}}")
    again = reproduction(config, TrialRecord(number=3, params={"arch": "resnet18"}), name="winner")
    assert again.resources.workers == 4


@pytest.mark.parametrize(
    ("resources", "told"),
    [
        ("{workers: 0}", "resources.workers: must be at least 1, found 0; write 1 or more"),
        ("{workers: two}", "resources.workers: must be a whole number, found 'two'; write 2, or a number for each"),
        ("{workers: true}", "resources.workers: must be a whole number, found true"),
        ("{workers: {}}", "resources.workers: must name an architecture, found an empty mapping; write {default: 1,"),
        ("{workers: {resnet18: 0}}", "resources.workers.resnet18: must be at least 1, found 0; write 1 or more"),
        ("{workers: {resnet: 2}}", "resources.workers.resnet: is no architecture of space.arch; write resnet18"),
        ("{gpus_per_worker: 1.5}", "gpus_per_worker above 1 must be a whole number, found 1.5; write 2"),
        ("{placement: near}", "resources.placement: must be packed or spread, found 'near'"),
        ("{hang_timeout: soon}", "resources.hang_timeout: must be a duration above 0, found 'soon'"),
        (
            "{fused: true}",
            "resources: fused: true has nothing to fuse with trials_per_device: 1; write trials_per_device",
        ),
        ("{trials_per_device: 4, workers: 2}", "trials_per_device: 4 is for trials of one worker, found workers: 2"),
        ("{trials_per_device: 4, gpus_per_worker: 2}", "trials_per_device: 4 shares one GPU, found gpus_per_worker: 2"),
        (
            "{workers: {default: 1, resnet18: 2}, gpus_per_worker: 0.5}",
            "resources: gpus_per_worker: 0.5 may give two workers of a trial the same GPU",
        ),
        ("{trials_per_device: 0}", "resources.trials_per_device: must be at least 1, found 0"),
        ("{retries: -1}", "resources.retries: must be at least 0, found -1"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, resources: str, told: str) -> None:
    lines = refusal(space_file(tmp_path, space=ARCHS, resources=resources))
    assert len(lines) == 1
    assert told in lines[0]


def test_what_trials_that_share_a_device_ask_for() -> None:
    each, fused = (
        ResourcesConfig(gpus_per_worker=1.0, cpus_per_worker=8.0, trials_per_device=16, fused=fused)
        for fused in (False, True)
    )
    assert worker_resources(each) == {"CPU": 0.5, "GPU": 0.0625}
    assert worker_resources(fused) == {"CPU": 8.0, "GPU": 1.0}
    assert (each.trials_at_a_slot, fused.trials_at_a_slot) == (1, 16)
    assert (each.num_threads, fused.num_threads) == (1, 8)
    assert (devices_of_worker(each), devices_of_worker(fused)) == (0.0625, 1.0)
