"""Images of a task: the digits, the cache, images that are left out, and statistics without decoding."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.images import write_classes, write_image
from trainables.config import DataConfig
from trainables.data import ImageData, cache_dir, load_data
from trainables.errors import DataError


def folder(root: Path, **options: Any) -> DataConfig:
    return DataConfig(name="folder", root=str(root), **options)


def test_digits(tmp_path: Path) -> None:
    data = load_data(DataConfig(name="digits"), cache_root=tmp_path)
    assert data.shape == (1797, 8, 8, 1)
    assert data.images.dtype == np.uint8
    assert data.images.max() == 255
    assert isinstance(data.images, np.memmap)
    assert not data.images.flags.writeable
    assert data.class_names == tuple("0123456789")
    assert data.kind == "multiclass"
    assert (data.given_split == -1).all()
    assert len(data.fingerprint) == 16


def test_images_that_come_decoded_are_never_streamed(tmp_path: Path) -> None:
    data = load_data(DataConfig(name="digits", loading="stream"), cache_root=tmp_path)
    assert data.loading == "memory"
    assert data.loading_reason == "the images of digits come decoded"


def test_cache_is_used_rebuilt_and_left_whole(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "images", {"a": 3, "b": 3})
    calls: list[int] = []

    def load() -> ImageData:
        return load_data(folder(root), cache_root=tmp_path / "cache", progress=lambda done, _: calls.append(done))

    first = load()
    assert first.kind == "binary"
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


def test_one_of_several_decodes(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "images", {"a": 30, "b": 30})
    calls: list[int] = []

    def load(_: int) -> str:
        config = folder(root)
        return load_data(config, cache_root=tmp_path / "cache", progress=lambda done, _: calls.append(done)).fingerprint

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(load, range(6)))) == 1
    assert calls == [60]


def test_the_fingerprint_is_of_the_images_not_of_their_place(tmp_path: Path) -> None:
    first, second = (write_classes(tmp_path / place, {"a": 3, "b": 2}) for place in ("here", "there"))
    one, other = (load_data(folder(root), cache_root=tmp_path / "cache") for root in (first, second))
    assert one.fingerprint == other.fingerprint
    (second / "a" / "000.png").rename(second / "b" / "zzz.png")
    assert load_data(folder(second), cache_root=tmp_path / "cache").fingerprint != one.fingerprint


def test_cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VISTUNE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "vistune"
    monkeypatch.setenv("VISTUNE_CACHE", str(tmp_path / "mine"))
    assert cache_dir() == tmp_path / "mine"


def test_too_large_for_the_disk(tmp_path: Path) -> None:
    from trainables.image_cache import _allocate

    (tmp_path / "entry").mkdir()
    with pytest.raises(DataError, match=r"need .* GiB, only .* GiB are free; set VISTUNE_CACHE(.|\n)*loading: stream"):
        _allocate(tmp_path / "entry" / "images.u8", (10**9, 1024, 1024, 3))


def damaged(root: Path) -> Path:
    """Two classes of five images, of which one each cannot be read."""
    write_classes(root, {"a": 5, "b": 5})
    (root / "a" / "001.png").write_bytes(b"no picture")
    whole = (root / "b" / "004.png").read_bytes()
    (root / "b" / "004.png").write_bytes(whole[: len(whole) // 2])
    return root


@pytest.mark.parametrize("loading", ["memory", "stream"])
def test_unreadable_images_are_left_out(tmp_path: Path, loading: str) -> None:
    whole = load_data(folder(write_classes(tmp_path / "whole", {"a": 5, "b": 5})), cache_root=tmp_path / "cache")
    root = damaged(tmp_path / "images")
    config = folder(root, on_corrupt="skip", loading=loading)
    data = load_data(config, cache_root=tmp_path / "cache")
    assert data.shape == (8, 8, 8, 3)
    assert data.labels.tolist() == [0] * 4 + [1] * 4
    assert data.names is not None
    assert data.names[:2] == ("a/000.png", "a/002.png")
    rows = [0, 2, 3, 4, 5, 6, 7, 8]
    assert np.array_equal(data.take(np.arange(8)), whole.take(np.array(rows)))
    assert np.array_equal(data.pixel_sums, whole.pixel_sums[rows])
    assert [text.split(": ")[0] for text in data.skipped] == ["a/001.png", "b/004.png"]
    assert "not an image" in data.skipped[0]
    assert load_data(config, cache_root=tmp_path / "cache").skipped == data.skipped, "the cache forgot them"
    # The cache was built leaving them out; that does not make them pass where they should fail.
    with pytest.raises(DataError, match=r"2 problem\(s\)(.|\n)*on_corrupt: skip(.|\n)*a/001\.png"):
        load_data(folder(root, loading=loading), cache_root=tmp_path / "cache")


def test_a_class_without_a_readable_image_is_an_error(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "images", {"a": 3, "b": 3, "c": 3})
    for path in (root / "b").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"no readable image is left of: b;(.|\n)*b/002\.png"):
        load_data(folder(root, on_corrupt="skip"), cache_root=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/meta.json"))


def test_channel_statistics_need_no_pixels(tmp_path: Path) -> None:
    write_classes(tmp_path / "images", {"a": 40, "b": 30})
    data = load_data(folder(tmp_path / "images", loading="stream"), cache_root=tmp_path / "cache")
    rows = np.arange(0, 70, 3)
    pixels = data.take(rows).reshape(-1, 3) / 255
    for path in (tmp_path / "images").rglob("*.png"):
        path.unlink()
    mean, deviation = data.channel_statistics(rows)
    assert mean == pytest.approx(pixels.mean(axis=0).tolist(), rel=1e-12)
    assert deviation == pytest.approx(pixels.std(axis=0).tolist(), rel=1e-12)


def test_an_entry_is_written_as_json(tmp_path: Path) -> None:
    load_data(DataConfig(name="digits", image_size=12), cache_root=tmp_path)
    (meta,) = tmp_path.glob("digits-*/meta.json")
    assert json.loads(meta.read_text())["shape"] == [1797, 12, 12, 1]
    assert (meta.parent / "images.u8").stat().st_size == 1797 * 12 * 12
