"""Is data decoded once and held once? Time of a second trial to its images, and memory of several trials on a node.

Memory is the proportional set size (PSS, smaps_rollup): of what processes share each counts its part, so the sum over
processes is what the machine has given. All read every image; a process that loads nothing is the baseline.

    make benchmark
"""

from __future__ import annotations

import multiprocessing
import os
import re
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.benchmarks.ratios import ratio
from trainables.config import DataConfig

pytestmark = pytest.mark.benchmark

IMAGES, SIDE_PX = 3000, 160
ROUNDS = 5
TRIALS = 4


def write_photographs(root: Path) -> Path:
    """JPEG files of noise over gradients, in two class folders."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, SIDE_PX)[:, None, None]
    for index in range(IMAGES):
        pixels = (ramp + rng.integers(0, 56, (SIDE_PX, SIDE_PX, 3))).astype(np.uint8)
        folder = root / f"class{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{index:05d}.jpg", quality=90)
    return root


def _open(root: Path | None, cache: Path, pipe: Connection) -> None:
    """A process that has everything a trial imports, and reads all images, if there are any to read."""
    os.environ["VISTUNE_CACHE"] = str(cache)
    import trainables.train
    from trainables.data import load_data

    del trainables.train
    began = time.perf_counter()
    pixels = None
    if root is not None:
        data = load_data(DataConfig(name="folder", root=str(root), image_size=SIDE_PX))
        loaded_s = time.perf_counter() - began
        pixels = sum(int(data.take(np.arange(start, start + 100)).sum()) for start in range(0, IMAGES, 100))
    else:
        loaded_s = 0.0
    pipe.send(loaded_s)
    pipe.recv()  # all are there
    rollup = Path("/proc/self/smaps_rollup").read_text()
    pipe.send(int(re.search(r"^Pss:\s+(\d+) kB", rollup, re.M)[1]) * 1024)  # type: ignore[index]
    pipe.recv()
    del pixels


def beside(count: int, root: Path | None, cache: Path) -> tuple[list[float], int]:
    """Seconds to the data of each of so many processes, one after the other, and bytes of all of them at a time."""
    context = multiprocessing.get_context("spawn")
    pipes, processes, loaded = [], [], []
    for _ in range(count):
        mine, theirs = context.Pipe()
        processes.append(context.Process(target=_open, args=(root, cache, theirs)))
        processes[-1].start()
        pipes.append(mine)
        loaded.append(float(mine.recv()))
    for pipe in pipes:
        pipe.send(None)
    held = sum(int(pipe.recv()) for pipe in pipes)
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(None)
        process.join()
    return loaded, held


def test_images_are_decoded_once_and_held_once(tmp_path: Path) -> None:
    photographs = write_photographs(tmp_path / "photographs")
    decoded = IMAGES * SIDE_PX * SIDE_PX * 3
    waits, growth = [], []
    for index in range(ROUNDS):
        cache = tmp_path / f"cache{index}"
        (first_s, *later_s), held = beside(TRIALS, photographs, cache)
        _, of_one = beside(1, photographs, cache)
        nothing, nothing_of_one = (beside(count, None, cache)[1] for count in (TRIALS, 1))
        waits.append(max(later_s) / first_s)
        growth.append(((held - of_one) - (nothing - nothing_of_one)) / (TRIALS - 1) / decoded)
    wait = ratio("wait of a later trial for its images over the first", waits, better="lower")
    held_again = ratio("images held by one more trial over all images", growth, better="lower")
    print(f"\n{IMAGES} JPEG files of {SIDE_PX} px, {decoded / 2**20:.0f} MiB decoded, {TRIALS} processes")
    print(f"  a later trial's wait for its images over the first's: {wait}")
    print(f"  memory that one more trial takes for images, over the decoded images: {held_again}")
