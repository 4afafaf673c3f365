"""Modes, sizes, orientation and damage of single images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.images import write_classes, write_image
from trainables.config import DataConfig
from trainables.data import load_data
from trainables.decode import Decoding, decode_image, decode_row
from trainables.errors import DataError
from trainables.sources import ImageFiles


def folder(root: Path, *, image_size: int | None = None) -> DataConfig:
    return DataConfig(name="folder", root=str(root), image_size=image_size)


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


def photograph(path: Path, *, side: int) -> Path:
    """A smooth JPEG with some texture, as cameras make them."""
    y, x = np.mgrid[0:side, 0:side] / side
    waves = np.stack([np.sin(9 * x + 5 * y), np.cos(7 * y * x), np.sin(40 * x) * 0.3], axis=-1)
    noise = np.random.default_rng(0).normal(0, 0.05, waves.shape)
    Image.fromarray(((waves + noise) * 60 + 128).clip(0, 255).astype(np.uint8)).save(path, quality=92)
    return path


def test_large_jpegs_are_decoded_small_to_nearly_the_same(tmp_path: Path) -> None:
    path = photograph(tmp_path / "large.jpg", side=800)
    with Image.open(path) as image:
        exact = np.asarray(image.resize((100, 100), Image.Resampling.BICUBIC)).astype(int)
    found = decode_image(path, image_size=100, channels=3).astype(int)
    assert np.abs(found - exact).mean() < 1.5
    with Image.open(path) as image:
        exact = np.asarray(image.resize((150, 150), Image.Resampling.BICUBIC)).astype(int)
    assert np.array_equal(decode_image(path, image_size=150, channels=3), exact), "less than six times as large"


def test_interpolation_is_honoured(tmp_path: Path) -> None:
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20), dtype=np.uint8)).save(path)
    images = ImageFiles([str(path)], ["noise.png"])
    bilinear, bicubic = (decode_row(images, 0, Decoding(1, 33, each)) for each in ("bilinear", "bicubic"))
    with Image.open(path) as image:
        assert np.array_equal(bilinear[..., 0], np.asarray(image.resize((33, 33), Image.Resampling.BILINEAR)))
    assert not np.array_equal(bilinear, bicubic)
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "x.png").write_bytes(path.read_bytes())
    for each, exact in (("bilinear", bilinear), ("bicubic", bicubic)):
        config = DataConfig.model_validate(
            {"name": "folder", "root": str(tmp_path / "images"), "image_size": 33, "interpolation": each}
        )
        assert np.array_equal(load_data(config, cache_root=tmp_path / "cache").take(np.array([1]))[0], exact)
