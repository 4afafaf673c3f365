"""Data sets of `datasets`, saved to disk and read from folders; nothing is downloaded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.images import write_classes, write_image
from trainables.config import DataConfig
from trainables.data import ImageData, load_data
from trainables.errors import DataError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "arrow"))


def load(root: Path | str, tmp_path: Path, **options: Any) -> ImageData:
    return load_data(DataConfig(name="huggingface", root=str(root), **options), cache_root=tmp_path / "cache")


def pictures(count: int, *, seed: int = 0) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(count)]


def dataset(labels: list[Any], feature: Any, *, seed: int = 0, **more: tuple[list[Any], Any]) -> Any:
    """A datasets.Dataset with random images; `more` columns are values and their feature."""
    columns = {"image": pictures(len(labels), seed=seed), "label": labels}
    features = {"image": datasets.Image(), "label": feature}
    for name, (values, kind) in more.items():
        columns[name], features[name] = values, kind
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


@pytest.mark.parametrize("loading", ["memory", "stream"])
def test_saved_splits(tmp_path: Path, loading: str) -> None:
    animals = datasets.ClassLabel(names=["snail", "dog", "ox"])
    saved = datasets.DatasetDict(
        {
            "train": dataset([0, 2, 0, 2], animals),
            "validation": dataset([2, 0], animals, seed=1),
            "test": dataset([0, 2, 2], animals, seed=2),
            "unsupervised": dataset([-1], animals),
        }
    )
    saved.save_to_disk(tmp_path / "saved")
    data = load(tmp_path / "saved", tmp_path, loading=loading)
    assert data.class_names == ("snail", "ox"), "in the order of the ClassLabel, without what no image shows"
    assert data.labels.tolist() == [0, 1, 0, 1, 1, 0, 0, 1, 1]
    assert data.given_split.tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 2]
    assert data.names is not None
    assert data.names[5:7] == ("validation[1]", "test[0]")
    assert data.loading == loading
    expected = np.stack(
        [np.asarray(picture) for seed, count in ((0, 4), (1, 2), (2, 3)) for picture in pictures(count, seed=seed)]
    )
    rows = np.array([8, 0, 5, 4, 3, 6])
    assert np.array_equal(next(data.batches([rows], num_threads=3)), expected[rows])


def test_without_splits_and_rows_chosen(tmp_path: Path) -> None:
    dataset([3, 12, 3, 7], datasets.Value("int64")).select([3, 1, 0]).save_to_disk(tmp_path / "saved")
    data = load(tmp_path / "saved", tmp_path)
    assert data.class_names == ("3", "7", "12")
    assert data.labels.tolist() == [1, 2, 0]
    assert np.array_equal(data.take(np.array([2]))[0], np.asarray(pictures(4)[0]))


def test_a_test_split_without_labels_is_left_out(tmp_path: Path) -> None:
    classes = datasets.ClassLabel(names=["a", "b"])
    parts = {"train": dataset([0, 1], classes), "test": dataset([-1, -1], classes)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    assert load(tmp_path / "saved", tmp_path).given_split.tolist() == [-1, -1]
    parts["train"] = dataset([0, -1, 1], classes)
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "gaps")
    with pytest.raises(DataError, match=r"1 problem\(s\)(.|\n)*train\[1\]: label is empty"):
        load(tmp_path / "gaps", tmp_path)


def test_folders_of_images_and_of_parquet(tmp_path: Path) -> None:
    root = tmp_path / "folder"
    write_classes(root / "train", {"a": 3, "b": 3})
    write_classes(root / "test", {"a": 1, "b": 1})
    first = load(root, tmp_path)
    assert first.class_names == ("a", "b")
    assert first.given_split.tolist() == [-1] * 6 + [2] * 2
    write_image(root / "train" / "a" / "000.png", level=77, seed=8)
    assert load(root, tmp_path).fingerprint != first.fingerprint, "a changed file is not seen"

    texts = dataset(["x", "y", "x"], datasets.Value("string"))
    (tmp_path / "parquet").mkdir()
    texts.to_parquet(tmp_path / "parquet" / "train.parquet")
    data = load(tmp_path / "parquet", tmp_path)
    assert (data.class_names, data.labels.tolist()) == (("x", "y"), [0, 1, 0])
    assert np.array_equal(data.take(np.array([1]))[0], np.asarray(pictures(3)[1]))


def test_several_labels(tmp_path: Path) -> None:
    flag, text = datasets.Value("int64"), datasets.Value("string")
    columns = {"sea": ([1, 0, 0], flag), "sky": ([1, 0, 1], datasets.Value("bool")), "bad": ([0, 2, None], flag)}
    dataset(["sea|sky", "", "sky"], text, **columns).save_to_disk(tmp_path / "saved")
    by_column = load(tmp_path / "saved", tmp_path, label_columns=("sea", "sky"))
    by_text = load(tmp_path / "saved", tmp_path, label_separator="|")
    assert by_column.labels.tolist() == by_text.labels.tolist() == [[1, 1], [0, 0], [0, 1]]
    assert by_column.class_names == by_text.class_names == ("sea", "sky")
    with pytest.raises(DataError, match=r"all\[1\]: bad must be 0 or 1, found 2\n  all\[2\]: .*found nothing"):
        load(tmp_path / "saved", tmp_path, label_columns=("sea", "bad"))


def test_unreadable_images_are_named_by_row(tmp_path: Path) -> None:
    broken = dataset([0, 1, 0, 1], datasets.ClassLabel(names=["a", "b"])).cast_column(
        "image", datasets.Image(decode=False)
    )
    rows = [{"image": {"bytes": b"no picture", "path": None}, "label": 0}, {"image": None, "label": 1}]
    more = datasets.Dataset.from_list(rows, features=broken.features)
    whole = datasets.concatenate_datasets([broken, more]).cast_column("image", datasets.Image())
    whole.save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=r"all\[4\]: not an image(.|\n)*all\[5\]: the row has no image"):
        load(tmp_path / "saved", tmp_path)
    data = load(tmp_path / "saved", tmp_path, on_corrupt="skip", loading="stream")
    assert data.shape == (4, 8, 8, 3)
    assert len(data.skipped) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_column": "klass"}, "no column klass, found image (Image), label (int64), tags (List); name the"),
        ({"image_column": "label"}, "label does not hold images, found image (Image)"),
        ({"label_column": "tags"}, "tags must hold a class, a number or text, found List; for several labels"),
        ({"label_column": "image"}, "image must hold a class, a number or text, found Image"),
    ],
)
def test_columns_that_do_not_fit(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    tags = ([[1], [2]], datasets.List(datasets.Value("int64")))
    dataset([0, 1], datasets.Value("int64"), tags=tags).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError) as caught:
        load(tmp_path / "saved", tmp_path, **options)
    assert message in str(caught.value)


def test_splits_that_do_not_fit(tmp_path: Path) -> None:
    part = dataset([0, 1], datasets.Value("int64"))
    datasets.DatasetDict({"fold1": part, "fold2": part}).save_to_disk(tmp_path / "folds")
    with pytest.raises(DataError, match="no split is called train, found fold1, fold2"):
        load(tmp_path / "folds", tmp_path)
    datasets.DatasetDict({"full": part}).save_to_disk(tmp_path / "one")
    assert load(tmp_path / "one", tmp_path).given_split.tolist() == [-1, -1]


def test_what_cannot_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"nowhere: the folder does not exist, and no data set of the hub is called so"):
        load(tmp_path / "nowhere", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: the data set cannot be loaded \(.*\); task\.data\.root is"):
        load(tmp_path / "empty", tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"someone/something: .*hub, which needs the network"):
        load("someone/something", tmp_path)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # how Python marks a module that cannot be imported
    with pytest.raises(DataError, match=r"needs the package `datasets`; pip install 'vistune\[huggingface\]'"):
        load(tmp_path, tmp_path)
