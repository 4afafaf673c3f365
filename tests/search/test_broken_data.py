"""Images that cannot be used: a clear error and exit status 2, before Ray starts and without a trace on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from search.run import main
from tests.images import make_class_folders
from tests.search.cli import write_space


def missing(root: Path) -> None:
    del root


def empty_class(root: Path) -> None:
    make_class_folders(root, classes=("cat", "dog"))
    (root / "eel").mkdir()


def corrupt(root: Path) -> None:
    make_class_folders(root, classes=("cat", "dog"))
    (root / "cat" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")


def one_class(root: Path) -> None:
    make_class_folders(root, classes=("cat",))


def too_few(root: Path) -> None:
    make_class_folders(root, classes=("cat", "dog"))
    for image in sorted((root / "dog").iterdir())[1:]:
        image.unlink()


def other_classes_in_test(root: Path) -> None:
    make_class_folders(root / "train", classes=("cat", "dog"))
    make_class_folders(root / "test", classes=("cat", "eel"))


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (missing, ["images", "root"]),
        (empty_class, ["eel"]),
        (corrupt, ["torn.png"]),
        (one_class, ["cat", "one class"]),
        (too_few, ["dog"]),
        (other_classes_in_test, ["dog", "eel"]),
    ],
)
def test_broken_data_is_named(
    tmp_path: Path, break_it: Callable[[Path], None], told: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "images"
    break_it(root)
    space = write_space(tmp_path, task={"data": {"name": "folder", "root": str(root)}})
    assert main([str(space), "--storage-path", str(tmp_path / "results")]) == 2
    err = capfd.readouterr().err
    assert str(root) in err
    assert all(word in err for word in told), err
    assert "Traceback" not in err
    assert not (tmp_path / "results").exists()


def test_an_image_too_small_for_an_architecture_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    space = write_space(tmp_path, space={"arch": {"type": "categorical", "values": ["small_cnn", "torchvision/vgg11"]}})
    assert main([str(space), "--storage-path", str(tmp_path / "results")]) == 2
    err = capfd.readouterr().err
    assert "torchvision/vgg11" in err
    assert "8" in err
