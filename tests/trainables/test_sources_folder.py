"""Class folders, with and without splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.images import write_classes, write_image
from trainables.config import DataConfig, SplitConfig
from trainables.data import load_data
from trainables.errors import DataError
from trainables.splits import make_splits


def folder(root: Path, *, image_size: int | None = None) -> DataConfig:
    return DataConfig(name="folder", root=str(root), image_size=image_size)


def test_class_folders_sorted_nested_hidden(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "images", {"b": 2, "a": 3})
    write_image(root / "a" / "deep" / "er" / "x.PNG", level=9)
    (root / "a" / ".hidden.png").write_bytes(b"no image")
    (root / ".thumbs").mkdir()
    (root / "notes.txt").write_text("read me")
    data = load_data(folder(root), cache_root=tmp_path / "cache")
    assert data.class_names == ("a", "b")
    assert data.labels.tolist() == [0, 0, 0, 0, 1, 1]
    assert data.names is not None
    assert data.names[3] == "a/deep/er/x.PNG"
    assert data.images.shape == (6, 8, 8, 3)
    np.testing.assert_array_equal(data.images[3], np.asarray(Image.open(root / "a/deep/er/x.PNG")))


@pytest.mark.parametrize(
    ("folders", "given"),
    [
        (("train",), {-1}),
        (("train", "test"), {-1, 2}),
        (("train", "validation"), {-1, 1}),
        (("train", "valid", "test"), {0, 1, 2}),
        (("Training", "Val", "TESTING"), {0, 1, 2}),
    ],
)
def test_split_folders(tmp_path: Path, folders: tuple[str, ...], given: set[int]) -> None:
    for name in folders:
        write_classes(tmp_path / "images" / name, {"a": 5, "b": 5})
    data = load_data(folder(tmp_path / "images"), cache_root=tmp_path / "cache")
    assert set(data.given_split.tolist()) == given
    splits = make_splits(data, SplitConfig())
    assert {len(np.unique(data.labels[rows])) for rows in (splits.train, splits.val, splits.test)} == {2}
    assert data.names is not None
    assert all(data.names[row].startswith(f"{folders[0]}/") for row in splits.train)
    if "test" in folders:
        assert all(data.names[row].startswith("test/") for row in splits.test)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, "no class folders found"),
        ({"a": 1}, "a: the only class"),
        ({"a": 1, "b": 0, "c": 0}, r"2 problem\(s\)(.|\n)*b: class folder without images\n  c: class folder without"),
        ({"train/a": 1, "train/b": 1, "test": 0}, "test: has no class folders"),
        ({"train/a": 1, "train/b": 1, "val/b": 1, "val/c": 1}, "lacks classes of train: a\n.*that train lacks: c"),
        ({"val/a": 1, "test/a": 1}, "train is missing, found test, val"),
        ({"train": 3, "test": 3}, "train has no class folders"),
        ({"train/a": 1, "train/b": 1, "val/a": 1, "valid/a": 1}, "both val and valid found"),
        (
            {"val/a": 1, "Test/a": 1, "photos/a": 1},
            "Test, val look like splits .* train is missing, found photos beside",
        ),
        ({"train/a": 1, "train/b": 1, "dogs": 1}, r"lie beside other folders of images \(dogs\)"),
    ],
)
def test_bad_layouts(tmp_path: Path, tree: dict[str, int], message: str) -> None:
    root = tmp_path / "images"
    root.mkdir()
    write_classes(root, tree)
    with pytest.raises(DataError, match=message):
        load_data(folder(root), cache_root=tmp_path / "cache")


def test_missing_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: the folder of images does not exist; correct task\.data\.root"):
        load_data(folder(tmp_path / "nowhere"), cache_root=tmp_path / "cache")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "vehicles", {"car": 2, "plane": 2, "train": 2})
    assert load_data(folder(root), cache_root=tmp_path / "cache").class_names == ("car", "plane", "train")
