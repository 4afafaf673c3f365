"""Out of memory changes speed, never results: probing, halving in the middle of training, and giving up honestly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainables.group import RETURN_FREED_MEMORY, curve_of, train_on
from trainables.batches import Batch
from trainables.config import DataConfig, TrialConfig
from trainables.memory import fewest_parts, is_out_of_memory, memory_is_limited
from trainables.runtime import LocalRuntime
from trainables.train import train
from trainables.trial_state import start_trial

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits a process's memory as Linux does")


def config(**changes: object) -> TrialConfig:
    base = {
        "data": DataConfig(name="digits", image_size=32),
        "arch": "small_cnn",
        "max_epochs": 2,
        "batch_size": 512,
        "lr": 3e-3,
    }
    return TrialConfig.model_validate({**base, **changes})


@pytest.mark.parametrize(("share", "most", "parts"), [(64, 64, 1), (64, 63, 2), (64, 20, 4), (10, 3, 4), (7, 1, 7)])
def test_fewest_parts(share: int, most: int, parts: int) -> None:
    asked: list[int] = []

    def fits(size: int) -> bool:
        asked.append(size)
        return size <= most

    assert fewest_parts(share, fits=fits) == parts
    assert len(asked) <= 8


def test_no_part_fits() -> None:
    assert fewest_parts(16, fits=lambda size: size < 1) is None


def test_a_failed_allocation_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert is_out_of_memory(RuntimeError("GET was unable to find an engine to execute this computation"))
    assert not memory_is_limited(torch.device("cpu"))


SCRIPT = """
import json, sys
from tests.trainables.group import limit_memory
from trainables import train as training, trial_state
from trainables.config import TrialConfig
from trainables.runtime import LocalRuntime

config, spare_mib, moment = TrialConfig.model_validate_json(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

def start_with_little_memory(config, runtime):
    trial_state.load_task(config.data, config.split)
    if moment == "before":
        limit_memory(spare_mib)
    trial = trial_state.start_trial(config, runtime)
    if moment == "after":
        limit_memory(spare_mib)
    return trial

training.start_trial = start_with_little_memory
runtime = LocalRuntime(num_threads=1)
try:
    training.train(config, runtime)
except Exception as error:
    print(json.dumps({"error": type(error).__name__, "message": str(error)}))
else:
    print(json.dumps(runtime.reported))
"""


def train_in_little_memory(spare_mib: int, *, moment: str, **changes: object) -> Any:
    command = [sys.executable, "-c", SCRIPT, config(**changes).model_dump_json(), str(spare_mib), moment]
    environment = os.environ | RETURN_FREED_MEMORY
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
def test_little_memory_gives_the_same_curve_in_smaller_parts(moment: str) -> None:
    whole = LocalRuntime(num_threads=1)
    train(config(), whole)
    parts = train_in_little_memory(250, moment=moment)
    assert whole.reported[0]["micro_batch_size"] == 512
    assert 1 < parts[0]["micro_batch_size"] < 512
    names = ("train_loss", "val_loss", "val_top1")
    for one, other in zip(curve_of(whole.reported, *names), curve_of(parts, *names), strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-3)


def test_not_even_one_image_fits() -> None:
    found = train_in_little_memory(
        40, moment="after", data={"name": "digits", "image_size": 1024}, batch_size=4, max_epochs=1
    )
    assert found["error"] == "OutOfMemoryError"
    assert "not even one image at a time fits" in found["message"]


def test_given_micro_batches_give_the_same_curve() -> None:
    gentle = {"data": DataConfig(name="digits"), "batch_size": 64, "lr": 1e-3}  # at 3e-3 training amplifies rounding
    one, other = LocalRuntime(num_threads=1), LocalRuntime(num_threads=1)
    train(config(**gentle), one)
    train(config(**gentle, micro_batch_size=10), other)
    names = ("train_loss", "val_loss", "val_top1")
    for expected, found in zip(curve_of(one.reported, *names), curve_of(other.reported, *names), strict=True):
        assert found == pytest.approx(expected, rel=1e-5)


class SecondOfTwo(LocalRuntime):
    """A rank that is told twice that the other has run out of memory."""

    rank, world_size = 1, 2
    failures = 2

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        told = values + (values.ndim == 0 and self.failures > 0)
        self.failures -= values.ndim == 0
        return told


def test_micro_batches_are_of_like_size() -> None:
    batch = Batch(torch.zeros(10, 3, 8, 8), torch.zeros(10, dtype=torch.int64), global_size=10)
    sizes = [(len(images), len(targets)) for images, targets in batch.micro_batches(3)]
    assert sizes == [(3, 3), (3, 3), (2, 2), (2, 2)], "of a single image BatchNorm would take no statistics"


def test_constants_that_come_with_the_first_images_outlast_the_search_for_a_micro_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trainables.step.memory_is_limited", lambda _: True)
    trial = start_trial(config(arch="convit_tiny", input_size=32, batch_size=4), LocalRuntime(num_threads=1))
    relative = trial.model.get_submodule("blocks.0.attn").get_buffer("rel_indices")
    assert relative.numel() > 3 and relative.abs().sum() > 0


def test_ranks_with_shares_of_two_sizes_lower_their_micro_batches_alike() -> None:
    trial = start_trial(config(batch_size=5), SecondOfTwo(num_threads=1))
    batch = next(iter(trial.train_batches.epoch(0)))
    assert (len(batch.images), batch.global_size) == (2, 5)
    trial.stepper.step(batch)  # the other's share is 3: 3, 2, 1
    assert trial.stepper.micro_batch_size == 1


@pytest.mark.slow
def test_one_rank_without_memory_lowers_the_micro_batch_of_all(tmp_path: Path) -> None:
    whole = train_on(2, config(), tmp_path / "whole")
    parts = train_on(2, config(), tmp_path / "parts", spare_mib=150)
    assert whole[0]["micro_batch_size"] == 256
    assert parts[0]["micro_batch_size"] < 256
    names = ("train_loss", "val_loss", "val_top1")
    for one, other in zip(curve_of(whole, *names), curve_of(parts, *names), strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-3)
