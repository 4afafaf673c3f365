"""ImageNet's folders, in small."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.images import write_classes, write_image
from trainables.config import DataConfig, SplitConfig
from trainables.data import ImageData, load_data
from trainables.errors import DataError
from trainables.splits import make_splits

COUNTS = {"n01440764": 6, "n02012849": 5, "n03126707": 5}


def load(root: Path) -> ImageData:
    config = DataConfig(name="imagenet", root=str(root), image_size=8)
    return load_data(config, cache_root=root.parent / "cache")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_classes(tmp_path / "imagenet" / "train", COUNTS, size=(20, 12), suffix=".JPEG")
    write_classes(tmp_path / "imagenet" / "val", dict.fromkeys(COUNTS, 2), size=(12, 20), suffix=".JPEG")
    (tmp_path / "imagenet" / "test").mkdir()
    write_image(tmp_path / "imagenet" / "test" / "ILSVRC2012_test_1.JPEG", level=5)  # without a label, as published
    return tmp_path / "imagenet"


def test_val_is_the_test_and_validation_is_carved(root: Path) -> None:
    data = load(root)
    assert data.class_names == tuple(COUNTS)
    assert data.names is not None
    splits = make_splits(data, SplitConfig())
    assert len(splits.test) == 6
    assert all(data.names[row].startswith("val/") for row in splits.test)
    assert all(data.names[row].startswith("train/") for row in [*splits.train, *splits.val])
    assert sorted(data.labels[splits.val].tolist()) == [0, 1, 2]
    shutil.rmtree(root / "val")
    assert (load(root).given_split == -1).all(), "without val/, the test is carved as well"


def test_names_of_the_synsets(root: Path) -> None:
    lines = ["n01440764 tench, Tinca tinca", "n02012849 crane", "n03126707 crane", "n04118776 rule, ruler", ""]
    (root / "LOC_synset_mapping.txt").write_text("\n".join(lines))
    assert load(root).class_names == ("tench", "crane (n02012849)", "crane (n03126707)")


def test_loose_validation_images(root: Path) -> None:
    for number, path in enumerate(sorted((root / "val").rglob("*.JPEG"))):
        path.rename(root / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    with pytest.raises(
        DataError, match=r"val: 6 images lie loose, for instance ILSVRC2012_val_00000000\.JPEG(.|\n)*WNID"
    ):
        load(root)


def test_what_is_missing(root: Path) -> None:
    shutil.rmtree(root / "val" / "n02012849")
    with pytest.raises(DataError, match="val: lacks classes of train: n02012849"):
        load(root)
    shutil.rmtree(root / "train")
    with pytest.raises(DataError, match="train is missing; expected train/WNID"):
        load(root)
