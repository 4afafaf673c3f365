"""Tables of images: labels of one class, of several, splits, and every wrong row at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.images import write_classes
from trainables.config import DataConfig, SplitConfig
from trainables.data import ImageData, load_data
from trainables.errors import DataError
from trainables.splits import make_splits


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with nine images i/000.png to i/008.png."""
    write_classes(tmp_path / "base", {"i": 9})
    return tmp_path / "base"


def load(base: Path, text: str, *, encoding: str = "utf-8", **options: Any) -> ImageData:
    (base / "table.csv").write_text(text, encoding=encoding)
    config = DataConfig(name="csv", csv=str(base / "table.csv"), **options)
    return load_data(config, cache_root=base.parent / "cache")


def table(header: str, *cells: str) -> str:
    return "\n".join([header, *(f"i/{row:03d}.png,{each}" for row, each in enumerate(cells))]) + "\n"


def test_one_class_a_row(base: Path) -> None:
    data = load(base, table("path,label", "dog", "cat", " dog ", '"eel, small"', "cat"))
    assert data.class_names == ("cat", "dog", "eel, small")
    assert data.labels.tolist() == [1, 0, 1, 2, 0]
    assert data.labels.dtype == np.int64
    assert (data.given_split == -1).all()
    assert data.names is not None
    assert data.names[3] == "i/003.png"


def test_columns_order_and_byte_order_mark(base: Path) -> None:
    text = "grade,remark,file\n10,x,i/000.png\n9,,i/001.png\n\n10,y,i/002.png\n"
    data = load(base, text, encoding="utf-8-sig", image_column="file", label_column="grade")
    assert data.class_names == ("9", "10"), "whole numbers are in numerical order"
    assert data.labels.tolist() == [1, 0, 1]


def test_paths_relative_to_root_and_outside_of_it(base: Path, tmp_path: Path) -> None:
    write_classes(tmp_path / "elsewhere", {"x": 2})
    text = f"path,label\n000.png,a\n../../elsewhere/x/000.png,b\n{tmp_path}/elsewhere/x/001.png,a\n"
    data = load(base, text, root=str(base / "i"))
    assert data.labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("column", "given"),
    [
        (["train", "val", "test", "Train", "validation", "test", "train"], [0, 1, 2, 0, 1, 2, 0]),
        (["train", "test", "test", "train", "train", "train", "train"], [-1, 2, 2, -1, -1, -1, -1]),
    ],
)
def test_split_column(base: Path, column: list[str], given: list[int]) -> None:
    rows = [f"{'ab'[row % 2]},{split}" for row, split in enumerate(column)]
    data = load(base, table("path,label,split", *rows))
    assert data.given_split.tolist() == given
    splits = make_splits(data, SplitConfig())
    assert splits.test.tolist() == np.flatnonzero(data.given_split == 2).tolist()


def test_label_columns(base: Path) -> None:
    text = table("path,sea,sky,split", "1,0,train", "0,0,train", "1,1,val", "0,1,train", "1.0,0,test")
    data = load(base, text, label_columns=("sky", "sea"))
    assert data.kind == "multilabel"
    assert data.class_names == ("sky", "sea")
    assert data.labels.dtype == np.uint8
    assert data.labels.tolist() == [[0, 1], [0, 0], [1, 1], [1, 0], [0, 1]]


def test_label_separator(base: Path) -> None:
    data = load(base, table("path,label", "sea|sky", "", "sky", " sky | land", "sea"), label_separator="|")
    assert data.kind == "multilabel"
    assert data.class_names == ("land", "sea", "sky")
    assert data.labels.tolist() == [[0, 1, 1], [0, 0, 0], [0, 0, 1], [1, 0, 1], [0, 1, 0]]


def test_every_wrong_row_is_listed(base: Path) -> None:
    text = "path,label,split\n" + "".join(
        [
            "i/000.png,a,train\n",
            "i/nowhere.png,a,train\n",
            "i/001.png,,train\n",
            '"i/002.png","b\nb",practice\n',  # a cell over two lines
            "i/003.png,b\n",
            "i/000.png,b,test\n",
            ",b,test\n",
            "i,b,test\n",
        ]
    )
    with pytest.raises(DataError) as caught:
        load(base, text)
    assert str(caught.value).splitlines() == [
        f"{base / 'table.csv'}: 7 problem(s) found; correct these lines and start again",
        f"  line 3: no file {base / 'i' / 'nowhere.png'}",
        "  line 4: label is empty",
        "  line 6: split must be train, val or test, found 'practice'",
        "  line 7: has 2 cells, the header has 3",
        "  line 8: i/000.png was listed before, on line 2",
        "  line 9: path is empty",
        f"  line 10: no file {base / 'i'}",
    ]


def test_long_lists_are_cut(base: Path) -> None:
    with pytest.raises(DataError, match=r"30 problem\(s\)(.|\n)*line 21: no file(.|\n)*and 10 more"):
        load(base, "path,label\n" + "".join(f"{row}.png,a\n" for row in range(30)))


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("file,label\nx,a\n", {}, "no column path in the header, found file, label; name the columns"),
        ("path;label\nx;a\n", {}, "the columns are separated by semicolons, expected commas; save the table so"),
        ("path\tlabel\nx\ta\n", {}, "the columns are separated by tabs, expected commas"),
        ("path|label\nx|a\n", {}, "no column path, label in the header, found path|label"),
        ("", {}, "no column path, label in the header, found nothing"),
        ("path,label,label\n", {}, "the header has label more than once"),
        ("path,label\n", {}, "the table has no rows"),
        (
            "path,a\ni/000.png,2\ni/001.png,\n",
            {"label_columns": ("a",)},
            "line 2: a must be 0 or 1, found '2'\n  line 3",
        ),
        ("path,label\ni/000.png,a\ni/001.png,a\n", {}, "a: the only class; a classifier needs at least two"),
        ("path,label\ni/000.png,\n", {"label_separator": "|"}, "labels: every row is without a label"),
        (
            "path,label,split\ni/000.png,a,train\ni/001.png,b,train\ni/002.png,c,test\n",
            {},
            "train: lacks classes of the other splits: c",
        ),
        ("path,label,split\ni/000.png,a,val\ni/001.png,b,test\n", {}, "split: no row says train"),
    ],
)
def test_bad_tables(base: Path, text: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        load(base, text, **options)
    assert message in str(caught.value)


def test_unreadable_tables(base: Path) -> None:
    config = DataConfig(name="csv", csv=str(base / "nowhere.csv"))
    with pytest.raises(DataError, match=r"nowhere\.csv: the table cannot be read \(.*\); correct task\.data\.csv"):
        load_data(config, cache_root=base)
    with pytest.raises(DataError, match="the table is not UTF-8 text"):
        load(base, "path,label\nä,b\n", encoding="latin-1")


def test_a_changed_label_is_seen(base: Path) -> None:
    first = load(base, table("path,label", "a", "b"))
    second = load(base, table("path,label", "b", "a"))
    assert first.fingerprint != second.fingerprint
    assert second.labels.tolist() == [1, 0]
