"""Images decoded when they are asked for: the same pixels as kept ones, in order, and threads that end."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.images import write_classes, write_image
from trainables.config import DataConfig
from trainables.data import ImageData, load_data
from trainables.errors import DataError
from trainables.loading import choose_loading, node_memory

CIFAR = Path(__file__).parents[3] / "shared" / "data" / "cifar10-5k"


def load(root: Path, tmp_path: Path, **options: Any) -> ImageData:
    return load_data(DataConfig(name="folder", root=str(root), **options), cache_root=tmp_path / "cache")


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Images of several sizes and formats in two classes."""
    root = tmp_path / "images"
    for index, size in enumerate([(40, 30), (33, 64), (300, 260), (24, 24), (25, 90), (400, 200)] * 4):
        suffix = (".jpg", ".png", ".webp")[index % 3]
        write_image(root / "ab"[index % 2] / f"{index:02d}{suffix}", level=10 * index, size=size, seed=index)
    return root


def decode_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("decode")]


def random_batches(count: int, *, size: int, batches: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, count, size) for _ in range(batches)]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_streamed_pixels_are_those_of_memory(tmp_path: Path, mixed: Path, interpolation: str) -> None:
    options = {"image_size": 24, "interpolation": interpolation}
    streamed = load(mixed, tmp_path, loading="stream", **options)
    assert (streamed.loading, streamed.loading_reason) == ("stream", "task.data.loading is stream")
    assert not list((tmp_path / "cache").glob("*/images.u8")), "a stream keeps no pixels"
    kept = load(mixed, tmp_path, loading="memory", **options)
    assert kept.loading == "memory"
    assert load(mixed, tmp_path, loading="stream", **options).loading == "stream", "kept images change nothing"
    assert streamed.shape == kept.shape == (24, 24, 24, 3)
    assert streamed.fingerprint == kept.fingerprint
    assert np.array_equal(streamed.pixel_sums, kept.pixel_sums)
    rows = random_batches(24, size=7, batches=9)
    expected = list(kept.batches(rows))
    for num_threads in (1, 3):
        found = list(streamed.batches(iter(rows), num_threads=num_threads))
        assert len(found) == 9
        assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))
    assert np.array_equal(streamed.take(rows[0]), expected[0])
    assert streamed.take(np.array([], np.int64)).shape == (0, 24, 24, 3)


def test_kept_images_are_added_to_what_a_stream_remembers(tmp_path: Path, mixed: Path) -> None:
    calls: list[int] = []

    def load_as(loading: str) -> ImageData:
        config = DataConfig.model_validate({"name": "folder", "root": str(mixed), "image_size": 16, "loading": loading})
        return load_data(config, cache_root=tmp_path / "cache", progress=lambda done, _: calls.append(done))

    load_as("stream")
    load_as("stream")
    assert calls == [24], "images are tried once, not in every process"
    load_as("memory")
    assert calls == [24, 24]
    assert load_as("auto").loading == "memory"
    assert calls == [24, 24]
    assert len(list((tmp_path / "cache").glob("*/meta.json"))) == 1


def test_few_batches_are_decoded_ahead(tmp_path: Path, mixed: Path) -> None:
    drawn: list[int] = []

    def rows() -> Iterator[np.ndarray]:
        for step in range(1000):
            drawn.append(step)
            yield np.array([step % 24])

    batches = load(mixed, tmp_path, image_size=16, loading="stream").batches(rows(), num_threads=2)
    next(batches)
    assert 2 <= len(drawn) <= 5
    assert decode_threads()
    batches.close()  # type: ignore[attr-defined]  # a generator
    assert not decode_threads()
    assert len(drawn) <= 5


def test_threads_end_with_the_epoch_and_with_an_error(tmp_path: Path, mixed: Path) -> None:
    data = load(mixed, tmp_path, image_size=16, loading="stream")
    for _ in data.batches(random_batches(24, size=5, batches=4), num_threads=2):
        pass
    assert not decode_threads()
    assert data.names is not None
    (mixed / data.names[5]).unlink()
    (mixed / data.names[9]).write_bytes(b"damaged meanwhile")
    good, bad = np.arange(5), np.arange(5, 12)
    batches = data.batches([good, bad], num_threads=2)
    assert len(next(batches)) == 5
    with pytest.raises(DataError, match=rf"{data.names[5]}: cannot be read any more \(no such file or directory\)"):
        next(batches)
    assert not decode_threads()
    with pytest.raises(DataError, match=rf"{data.names[9]}: cannot be read any more \(not an image"):
        data.take(np.array([9]))


def test_unreadable_images_stop_a_stream_before_training(tmp_path: Path, mixed: Path) -> None:
    write_image(mixed / "a" / "cut.jpg", level=100, size=(200, 200))
    whole = (mixed / "a" / "cut.jpg").read_bytes()
    (mixed / "a" / "cut.jpg").write_bytes(whole[: len(whole) // 2])  # its header is intact
    with pytest.raises(DataError, match=r"a/cut\.jpg: image file is truncated"):
        load(mixed, tmp_path, image_size=16, loading="stream")


def test_an_image_that_changed_its_size_is_named(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "images", {"a": 2, "b": 2})
    data = load(root, tmp_path, loading="stream")
    Image.new("RGB", (9, 9)).save(root / "b" / "001.png")
    with pytest.raises(DataError, match=r"b/001\.png: cannot be read any more"):
        data.take(np.array([3]))


@pytest.mark.parametrize(
    ("wanted", "needed", "disk", "loading", "reason"),
    [
        ("auto", 4, 100, "memory", "the decoded images (4.00 GiB) fit into half of the memory (10.00 GiB)"),
        ("auto", 6, 100, "stream", "the decoded images (6.00 GiB) exceed half of the memory (10.00 GiB)"),
        ("auto", 4, 4, "stream", "the decoded images (4.00 GiB) exceed the free disk of the cache (4.00 GiB)"),
        ("auto", 4, None, "memory", "the decoded images (4.00 GiB) fit into half of the memory (10.00 GiB)"),
        ("memory", 600, 1, "memory", "task.data.loading is memory"),
        ("stream", 1, 100, "stream", "task.data.loading is stream"),
    ],
)
def test_choice_of_loading(wanted: Any, needed: int, disk: int | None, loading: str, reason: str) -> None:
    gib = 2**30
    choice = choose_loading(wanted, needed=needed * gib, memory=10 * gib, disk=None if disk is None else disk * gib)
    assert (choice.loading, choice.reason) == (loading, reason)


def test_memory_is_what_the_control_groups_allow(tmp_path: Path) -> None:
    proc, groups = tmp_path / "cgroup", tmp_path / "groups"
    physical = node_memory(proc=tmp_path / "nothing", cgroups=groups)
    assert physical > 2**28
    proc.write_text("0::/batch/job/step\n")
    (groups / "batch" / "job" / "step").mkdir(parents=True)
    (groups / "batch" / "job" / "step" / "memory.max").write_text("max\n")
    assert node_memory(proc=proc, cgroups=groups) == physical
    (groups / "batch" / "memory.max").write_text(f"{2**20}\n")
    assert node_memory(proc=proc, cgroups=groups) == 2**20
    proc.write_text("3:cpu,cpuacct:/job\n7:memory:/job\n")
    (groups / "memory" / "job").mkdir(parents=True)
    (groups / "memory" / "job" / "memory.limit_in_bytes").write_text(f"{2**21}\n")
    assert node_memory(proc=proc, cgroups=groups) == 2**21


@pytest.mark.skipif(not CIFAR.is_dir(), reason="the CIFAR-10 excerpt is not here")
def test_real_photographs_stream_as_they_are_kept(tmp_path: Path) -> None:
    streamed, kept = (load(CIFAR, tmp_path, image_size=24, loading=each) for each in ("stream", "memory"))
    rows = [np.arange(start, len(kept.labels), 97) for start in range(4)]
    pairs = zip(streamed.batches(rows, num_threads=2), kept.batches(rows), strict=True)
    assert all(np.array_equal(*pair) for pair in pairs)
    assert streamed.fingerprint == kept.fingerprint


@pytest.mark.parametrize("name", ["images.u8", "labels.npy", "pixel_sums.npy", "meta.json"])
@pytest.mark.parametrize("left", [0, 100])
def test_an_entry_whose_file_was_cut_short_is_made_anew(tmp_path: Path, name: str, left: int) -> None:
    config = DataConfig(name="digits", image_size=12)
    whole = load_data(config, cache_root=tmp_path)
    (file,) = tmp_path.glob(f"digits-*/{name}")
    rows, images = np.arange(50), whole.take(np.arange(50)).copy()
    del whole  # a process that has the file mapped is killed by the kernel when it touches what is no more
    os.truncate(file, left)

    again = load_data(config, cache_root=tmp_path)

    assert np.array_equal(again.take(rows), images)
    assert load_data(config, cache_root=tmp_path).fingerprint == again.fingerprint
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [file.parent.name]
