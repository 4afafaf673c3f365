"""How images are divided, and the file that records it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.images import write_classes
from trainables.config import DataConfig, SplitConfig
from trainables.data import ImageData, load_data
from trainables.errors import DataError
from trainables.splits import make_splits, read_splits, write_splits
from trainables.streaming import MemoryImages


def fake_data(labels: list[int] | np.ndarray, given: list[int]) -> ImageData:
    values = np.array(labels)
    count = values.shape[1] if values.ndim == 2 else max(labels) + 1
    return ImageData(
        store=MemoryImages(np.zeros((len(values), 4, 4, 1), np.uint8)),
        labels=values,
        class_names=tuple("abcdefgh"[:count]),
        given_split=np.array(given, np.int8),
        names=None,
        fingerprint="0" * 16,
        pixel_sums=np.zeros((len(values), 2, 1), np.uint64),
    )


def test_splits_are_stratified_complete_and_fixed_by_the_seed() -> None:
    data = fake_data([0] * 10 + [1] * 25 + [2] * 3, [-1] * 38)
    splits = make_splits(data, SplitConfig(val=0.15, test=0.2, seed=3))
    parts = (splits.train, splits.val, splits.test)
    assert sorted(np.concatenate(parts).tolist()) == list(range(38))
    # Half up: 1.5 -> 2, 3.75 -> 4; and at least one of three.
    assert [np.bincount(data.labels[rows]).tolist() for rows in parts] == [[6, 16, 1], [2, 4, 1], [2, 5, 1]]
    assert all((np.diff(rows) > 0).all() for rows in parts)
    again = make_splits(data, SplitConfig(val=0.15, test=0.2, seed=3))
    assert again.val.tolist() == splits.val.tolist()
    other = make_splits(data, SplitConfig(val=0.15, test=0.2, seed=4))
    assert other.val.tolist() != splits.val.tolist()


def test_a_training_image_is_left_whatever_the_fractions() -> None:
    splits = make_splits(fake_data([0, 0, 0, 1, 1, 1], [-1] * 6), SplitConfig(val=0.6, test=0.3))
    assert [len(rows) for rows in (splits.train, splits.val, splits.test)] == [2, 2, 2]


def test_too_few_images_for_the_splits() -> None:
    with pytest.raises(DataError, match=r"each class needs at least 3 images .* too few in: b \(2\), c \(1\); add"):
        make_splits(fake_data([0, 0, 0, 1, 1, 2], [-1] * 6), SplitConfig())
    with pytest.raises(DataError, match="at least 2 images"):
        make_splits(fake_data([0, 0, 1, 0, 1], [-1, -1, -1, 2, 2]), SplitConfig())


def test_splits_survive_the_file(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "images", {"a": 5, "b, with comma": 5})
    data = load_data(DataConfig(name="folder", root=str(root)), cache_root=tmp_path / "cache")
    splits = make_splits(data, SplitConfig())
    write_splits(tmp_path / "splits.csv", splits, data)
    back = read_splits(tmp_path / "splits.csv")
    assert back.train.tolist() == splits.train.tolist()
    assert back.val.tolist() == splits.val.tolist()
    assert back.test.tolist() == splits.test.tolist()
    assert 'train,"b, with comma","b, with comma/' in (tmp_path / "splits.csv").read_text()
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []
    (tmp_path / "splits.csv").write_text("nonsense\n1\n")
    with pytest.raises(DataError, match="not a splits file"):
        read_splits(tmp_path / "splits.csv")


def test_the_splits_of_a_seed_stay_what_they_were() -> None:
    # Runs of earlier versions are compared with later ones, and pinned curves rest on these rows.
    splits = make_splits(fake_data([0] * 7 + [1] * 8, [-1] * 15), SplitConfig(seed=1))
    assert splits.val.tolist() == [5, 8, 13]
    assert splits.test.tolist() == [0, 9, 14]


def movies(count: int) -> np.ndarray:
    """Labels like those of films: one common, some correlated, one rare, and images without any."""
    rng = np.random.default_rng(0)
    common = rng.random(count) < 0.6
    labels = np.stack(
        [common, common & (rng.random(count) < 0.3), rng.random(count) < 0.2, rng.random(count) < 0.02], 1
    )
    labels[:3, 3] = True
    return labels.astype(np.uint8)


def test_multi_label_splits_keep_the_share_of_every_label() -> None:
    labels = movies(500)
    assert (labels.sum(axis=1) == 0).sum() > 20
    data = fake_data(labels, [-1] * 500)
    assert data.kind == "multilabel"
    splits = make_splits(data, SplitConfig(val=0.2, test=0.1, seed=3))
    parts = (splits.train, splits.val, splits.test)
    assert sorted(np.concatenate(parts).tolist()) == list(range(500))
    assert [len(rows) for rows in parts] == pytest.approx([350, 100, 50], abs=3)
    for rows, share in zip(parts, (0.7, 0.2, 0.1), strict=True):
        assert labels[rows].sum(axis=0) == pytest.approx(labels.sum(axis=0) * share, abs=2)
        assert labels[rows].any(axis=0).all()
    again = make_splits(data, SplitConfig(val=0.2, test=0.1, seed=3))
    assert again.val.tolist() == splits.val.tolist()
    assert make_splits(data, SplitConfig(val=0.2, test=0.1, seed=4)).val.tolist() != splits.val.tolist()


def test_a_rare_label_is_in_every_split() -> None:
    labels = np.zeros((60, 2), np.uint8)
    labels[:, 0] = 1
    labels[:3, 1] = 1
    splits = make_splits(fake_data(labels, [-1] * 60), SplitConfig(val=0.1, test=0.1))
    assert [labels[rows, 1].sum() for rows in (splits.train, splits.val, splits.test)] == [1, 1, 1]
    labels[2, 1] = 0
    with pytest.raises(DataError, match=r"at least 3 images .* too few in: b \(2\)"):
        make_splits(fake_data(labels, [-1] * 60), SplitConfig())


def test_given_multi_label_splits_stay(tmp_path: Path) -> None:
    labels = movies(100)
    data = fake_data(labels, [0] * 50 + [1] * 30 + [2] * 20)
    splits = make_splits(data, SplitConfig())
    assert splits.val.tolist() == list(range(50, 80))
    write_splits(tmp_path / "splits.csv", splits, data)
    assert read_splits(tmp_path / "splits.csv").test.tolist() == splits.test.tolist()
    lines = (tmp_path / "splits.csv").read_text().splitlines()
    row = int(np.flatnonzero(labels[:50, 1])[0])
    assert f"{row},train,{'|'.join('abcd'[label] for label in np.flatnonzero(labels[row]))}," in lines
    assert "a|b" in lines[row + 1]
