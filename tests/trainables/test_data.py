"""Data sets, decoding, the cache of decoded images, and splits."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.images import write_classes, write_image
from trainables.config import DataConfig, SplitConfig
from trainables.data import ImageData, cache_dir, load_data, make_splits, read_splits, write_splits
from trainables.errors import DataError


def folder(root: Path, *, image_size: int | None = None) -> DataConfig:
    return DataConfig(name="folder", root=str(root), image_size=image_size)


def fake_data(labels: list[int], given: list[int]) -> ImageData:
    classes = tuple("abcdefgh"[: max(labels) + 1])
    images = np.zeros((len(labels), 4, 4, 1), np.uint8)
    return ImageData(images, np.array(labels), classes, np.array(given, np.int8), None, "0" * 16)


def test_digits(tmp_path: Path) -> None:
    data = load_data(DataConfig(name="digits"), cache_root=tmp_path)
    assert data.images.shape == (1797, 8, 8, 1)
    assert data.images.dtype == np.uint8
    assert data.images.max() == 255
    assert isinstance(data.images, np.memmap)
    assert not data.images.flags.writeable
    assert data.class_names == tuple("0123456789")
    assert (data.given_split == -1).all()
    assert len(data.fingerprint) == 16


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
    assert all(data.names[row].startswith("train/") for row in splits.train)
    if "test" in folders:
        assert all(data.names[row].startswith("test/") for row in splits.test)


def test_gray_and_colour_modes(tmp_path: Path) -> None:
    gray = write_classes(tmp_path / "gray", {"a": 1, "b": 1}, mode="L")
    Image.fromarray(np.full((8, 8), 257 * 100, np.uint16)).save(gray / "a" / "deep16.png")
    Image.new("1", (8, 8), 1).save(gray / "b" / "bits.png")
    data = load_data(folder(gray), cache_root=tmp_path / "cache")
    assert data.images.shape[-1] == 1
    assert data.names is not None
    assert data.images[data.names.index("a/deep16.png")].ravel().tolist() == [100] * 64
    assert data.images[data.names.index("b/bits.png")].ravel().tolist() == [255] * 64

    for mode, suffix in (("RGBA", "png"), ("P", "png"), ("CMYK", "jpg"), ("LA", "png")):
        write_image(gray / "b" / f"{mode}.{suffix}", level=50, mode="L")
        Image.new(mode, (8, 8)).save(gray / "b" / f"{mode}.{suffix}")
    palette = Image.new("P", (8, 8))
    palette.info["transparency"] = bytes([0] * 256)
    palette.save(gray / "b" / "transparent.png", transparency=bytes([0, 255]))
    assert load_data(folder(gray), cache_root=tmp_path / "cache").images.shape == (9, 8, 8, 3)


def test_resize_crop_and_orientation(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "images", {"a": 1, "b": 1}, size=(40, 20))
    stripes = np.zeros((12, 24, 3), np.uint8)
    stripes[:, 6:18] = 255  # the centre crop keeps exactly the white part
    Image.fromarray(stripes).save(root / "a" / "stripes.png")
    turned = np.zeros((20, 12, 3), np.uint8)
    turned[:10] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # shown rotated by 90 degrees clockwise: what was on top is on the right
    Image.fromarray(turned).save(root / "a" / "turned.jpg", exif=exif, quality=95)
    data = load_data(folder(root, image_size=12), cache_root=tmp_path / "cache")
    assert data.images.shape == (4, 12, 12, 3)
    assert data.names is not None
    assert (data.images[data.names.index("a/stripes.png")] == 255).all()
    shown = data.images[data.names.index("a/turned.jpg")].astype(int)
    assert shown[:, -1].min() > 150
    assert shown[:, 0].max() < 50


def test_cache_is_used_rebuilt_and_left_whole(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "images", {"a": 3, "b": 3})
    calls: list[int] = []

    def load() -> ImageData:
        return load_data(folder(root), cache_root=tmp_path / "cache", progress=lambda done, _: calls.append(done))

    first = load()
    assert calls == [6]
    assert load().fingerprint == first.fingerprint
    assert calls == [6]
    # What a killed builder leaves does not disturb the next one.
    (built,) = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    built.rename(built.with_name(built.name + ".tmp"))
    assert load().fingerprint == first.fingerprint
    assert calls == [6, 6]
    write_image(root / "a" / "000.png", level=200, size=(8, 8), seed=99)
    assert load().fingerprint != first.fingerprint
    (root / "b" / "000.png").write_bytes(b"damaged")
    with pytest.raises(DataError):
        load()
    assert not list((tmp_path / "cache").glob("*.tmp"))


def test_cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VISTUNE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "vistune"
    monkeypatch.setenv("VISTUNE_CACHE", str(tmp_path / "mine"))
    assert cache_dir() == tmp_path / "mine"


def test_unreadable_images_are_all_listed(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "images", {"a": 30, "b": 2})
    write_image(root / "b" / "cut.jpg", level=100, size=(64, 64))
    whole = (root / "b" / "cut.jpg").read_bytes()
    (root / "b" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    for index in range(24):
        (root / "a" / f"{index:03d}.png").write_bytes(b"not a picture")
    with pytest.raises(DataError) as caught:
        load_data(folder(root, image_size=8), cache_root=tmp_path / "cache")
    text = str(caught.value)
    assert "25 problem(s)" in text
    assert "a/000.png: not an image" in text
    assert "and 5 more" in text
    for index in range(24):
        (root / "a" / f"{index:03d}.png").unlink()
    with pytest.raises(DataError, match=r"b/cut\.jpg: .*truncated"):
        load_data(folder(root, image_size=8), cache_root=tmp_path / "cache")


def test_nothing_readable(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"no image can be read(.|\n)*a/x\.png: not an image"):
        load_data(folder(tmp_path / "images"), cache_root=tmp_path / "cache")


def test_sizes_must_agree(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "images", {"a": 3, "b": 1})
    write_image(root / "b" / "large.png", level=5, size=(20, 10))
    with pytest.raises(DataError, match=r"found 2: 8x8 \(4 images\), 20x10 \(1 images\); set task\.data\.image_size"):
        load_data(folder(root), cache_root=tmp_path / "cache")
    oblong = write_classes(tmp_path / "oblong", {"a": 1, "b": 1}, size=(8, 6))
    with pytest.raises(DataError, match=r"must be square, found 8x6; set task\.data\.image_size, for instance 6"):
        load_data(folder(oblong), cache_root=tmp_path / "cache")


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


def test_too_large_for_the_disk(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "images", {"a": 2, "b": 2})
    from trainables.data import _allocate

    with pytest.raises(DataError, match=r"need .* GiB, only .* GiB are free; set VISTUNE_CACHE"):
        _allocate(root / "images.npy", (10**9, 1024, 1024, 3))


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
    data = load_data(folder(root), cache_root=tmp_path / "cache")
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
