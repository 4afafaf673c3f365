"""Images that cannot be used: a clear error and exit status 2, before Ray starts and without a trace on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from search.run import main
from tests.images import write_classes
from tests.search.cli import write_space


def missing(root: Path) -> None:
    del root


def empty_class(root: Path) -> None:
    write_classes(root, {"cat": 10, "dog": 10})
    (root / "eel").mkdir()


def corrupt(root: Path) -> None:
    write_classes(root, {"cat": 10, "dog": 10})
    (root / "cat" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")


def one_class(root: Path) -> None:
    write_classes(root, {"cat": 10})


def too_few(root: Path) -> None:
    write_classes(root, {"cat": 10, "dog": 10})
    for image in sorted((root / "dog").iterdir())[1:]:
        image.unlink()


def other_classes_in_test(root: Path) -> None:
    write_classes(root / "train", {"cat": 10, "dog": 10})
    write_classes(root / "test", {"cat": 10, "eel": 10})


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (missing, ["images", "root"]),
        (empty_class, ["eel"]),
        (corrupt, ["torn.png"]),
        (one_class, ["cat: the only class"]),
        (too_few, ["dog (1)"]),
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
    assert str(root) in err or break_it is too_few  # a matter of the split, not of a place on disk
    assert all(word in err for word in told), err
    assert "Traceback" not in err
    assert not (tmp_path / "results").exists()


def test_an_image_too_small_for_an_architecture_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    space = write_space(tmp_path, space={"arch": {"type": "categorical", "values": ["small_cnn", "torchvision/vgg11"]}})
    assert main([str(space), "--storage-path", str(tmp_path / "results")]) == 2
    err = capfd.readouterr().err
    assert "torchvision/vgg11" in err
    assert "8" in err
