"""Data sets that torchvision decodes, read from their own files."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from trainables.config import DataConfig, SplitConfig
from trainables.data import load_data
from trainables.errors import DataError
from trainables.splits import make_splits


def write_cifar10(root: Path) -> None:
    """CIFAR-10's own files with 10 images in each batch."""
    files = root / "cifar-10-batches-py"
    files.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        batch = {"data": rng.integers(0, 256, (10, 3072), dtype=np.uint8), "labels": list(range(10))}
        (files / name).write_bytes(pickle.dumps(batch))
    names = ["airplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (files / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))


def write_mnist(root: Path) -> None:
    """MNIST's own files with 20 training and 10 test images."""
    files = root / "MNIST" / "raw"
    files.mkdir(parents=True)
    for part, count in (("train", 20), ("t10k", 10)):
        pixels = np.arange(count, dtype=np.uint8).repeat(28 * 28)
        header = b"".join(number.to_bytes(4, "big") for number in (0x803, count, 28, 28))
        (files / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        labels = np.arange(count, dtype=np.uint8) % 10
        header = b"".join(number.to_bytes(4, "big") for number in (0x801, count))
        (files / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


def test_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    write_cifar10(tmp_path / "data")
    config = DataConfig(name="cifar10", root=str(tmp_path / "data"))
    with pytest.raises(DataError, match=r"files of cifar10 are incomplete or damaged"):
        load_data(config, cache_root=tmp_path / "cache")  # its checksums are those of the real files
    monkeypatch.setattr(CIFAR10, "train_list", [[name, None] for name, _ in CIFAR10.train_list])
    monkeypatch.setattr(CIFAR10, "test_list", [[name, None] for name, _ in CIFAR10.test_list])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": None})
    data = load_data(config, cache_root=tmp_path / "cache")
    assert data.images.shape == (60, 32, 32, 3)
    assert data.class_names[2] == "bird"
    assert data.names is None
    assert data.given_split.tolist() == [-1] * 50 + [2] * 10
    splits = make_splits(data, SplitConfig(val=0.2))
    assert [len(rows) for rows in (splits.train, splits.val, splits.test)] == [40, 10, 10]


def test_mnist_resized(tmp_path: Path) -> None:
    write_mnist(tmp_path / "data")
    config = DataConfig(name="mnist", root=str(tmp_path / "data"), image_size=14)
    data = load_data(config, cache_root=tmp_path / "cache")
    assert data.images.shape == (30, 14, 14, 1)
    assert data.images[7].ravel().tolist() == [7] * 196
    assert data.given_split.tolist() == [-1] * 20 + [2] * 10


def test_missing_files_of_a_known_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"files of cifar100 are missing, expected .*cifar-100-python; set task\.data"):
        load_data(DataConfig(name="cifar100", root=str(tmp_path)), cache_root=tmp_path / "cache")
