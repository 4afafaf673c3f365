"""How long until the first training step? Against a bare `ray.init` and the imports of torch and timm.

The baseline is a process that does only that. vistune reads and checks the space, finds or decodes the images, builds
every architecture, starts Ray, opens the study, and has an actor of Ray import torch and build the first trial.

    make benchmark
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from tests.benchmarks.ratios import ratio
from tests.search.cli import finish, start, write_space

pytestmark = pytest.mark.benchmark

REPEATS = 5
BARE = "import ray; ray.init(log_to_driver=False); import torch, timm"
SPACES = {
    "small_cnn": {"arch": "small_cnn", "lr": 0.003},
    "timm": {"arch": {"type": "categorical", "values": ["test_resnet", "small_cnn"]}, "lr": 0.003},
}


def seconds_of_bare_start() -> float:
    began = time.time()
    subprocess.run([sys.executable, "-c", BARE], check=True, capture_output=True)
    return time.time() - began


def seconds_to_first_step(space: Path, folder: Path) -> float:
    """Until the first trial's TensorBoard file begins: then everything is ready for the first batch."""
    began = time.time()
    status, out, err = finish(start(space, "--name", "run", "--storage-path", folder))
    assert (status, err) == (0, ""), out
    events = list((folder / "run" / "trials" / "0000").glob("events.*"))
    return min(next(iter(EventFileLoader(str(path)).Load())).wall_time for path in events) - began


@pytest.mark.parametrize("name", SPACES)
def test_start_up(tmp_path: Path, name: str) -> None:
    space = write_space(tmp_path, space=SPACES[name], scheduler={"name": "none", "max_epochs": 1}, budget={"trials": 1})
    seconds_of_bare_start()  # what the disk has to read is read
    pairs = [(seconds_to_first_step(space, tmp_path / str(index)), seconds_of_bare_start()) for index in range(REPEATS)]
    ours, bare = zip(*pairs, strict=True)
    found = ratio(f"start-up to the first step, {name}, over a bare start", [a / b for a, b in pairs], better="lower")
    print(f"\n{name}: {median(ours):.1f} s to the first step, bare start {median(bare):.1f} s: ratio {found}")


@pytest.mark.parametrize("arguments", [("--help",), ("spaces/small_dataset.yaml", "--dry-run", "--quick")])
def test_first_words(arguments: tuple[str, ...]) -> None:
    """What a person waits for who only asks, over an interpreter that does nothing."""

    def seconds(*command: str) -> float:
        began = time.time()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        return time.time() - began

    seconds("-m", "search.run", *arguments)
    pairs = [(seconds("-m", "search.run", *arguments), seconds("-c", "pass")) for _ in range(REPEATS)]
    name = next(each for each in arguments if each.startswith("--"))
    found = ratio(f"search.run {name}, over a bare interpreter", [a / b for a, b in pairs], better="lower")
    print(f"\n{name}: {median(a for a, _ in pairs):.2f} s: ratio {found}")
