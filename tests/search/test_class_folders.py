"""A search on real photographs in class folders, test folder given, validation carved from train."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.search.cli import run, summary_of, write_space

DATA = Path(os.environ.get("VISTUNE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
CIFAR = DATA / "cifar10-5k"

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(not CIFAR.is_dir(), reason=f"needs 5,000 CIFAR-10 images as class folders in {CIFAR}"),
]


def test_a_search_on_cifar_photographs(tmp_path: Path) -> None:
    space = write_space(
        tmp_path,
        task={"data": {"name": "folder", "root": str(CIFAR)}, "split": {"val": 0.2}},
        space={
            "arch": {"type": "categorical", "values": ["test_resnet", "mobilenetv3_small_050"]},
            "lr": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True},
            "batch_size": 128,
            "augment": {"type": "categorical", "values": ["basic", "flips"]},
        },
        augmentations={"flips": ["HorizontalFlip", {"RandomBrightnessContrast": {"p": 0.3}}]},
        scheduler={"max_epochs": 3, "grace_period": 2, "reduction_factor": 2},
        budget={"trials": 4},
        start_from=[{"arch": "test_resnet", "lr": 0.005, "augment": "basic"}],
    )
    status, out, err = run(space, "--name", "cifar", "--storage-path", tmp_path)
    assert (status, err) == (0, ""), out
    environment = json.loads((tmp_path / "cifar" / "environment.json").read_text())
    assert (environment["data"]["train"], environment["data"]["val"], environment["data"]["test"]) == (4000, 1000, 1000)
    assert environment["data"]["shape"] == [32, 32, 3]
    assert summary_of(tmp_path / "cifar")["test"]["images"] == 1000
    assert summary_of(tmp_path / "cifar")["test"]["top1"] > 0.2  # guessing gives 0.1
