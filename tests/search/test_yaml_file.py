"""Scalars mean what a person means, every part knows its line, and broken files get a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search.yaml_file import MAX_NODES, parse_value, read_yaml
from search.yaml_syntax import MAX_DEPTH, dump_yaml
from trainables.errors import ConfigError


def _write(folder: Path, text: str | bytes) -> Path:
    path = folder / "space.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def _refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-1.", -1.0),
        ("+2.5e+2", 250.0),
        (".inf", float("inf")),
        ("-.inf", float("-inf")),
        ("10", 10),
        ("-7", -7),
        ("0x1F", 31),
        ("0o17", 15),
        ("010", 10),
        ("1_000", "1_000"),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1e-3'", "1e-3"),
        ("!!str 5", "5"),
        ("!!float 5", 5.0),
        ("1e", "1e"),
        ("=", "="),
        ("{a: [1, 2e1]}", {"a": [1, 20.0]}),
    ],
)
def test_scalars(text: str, value: Any) -> None:
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    "value", ["1e-3", "yes", "true", "12:30", "null", "", "<<", "0x1", ".5", "é — ü", 1e-5, 1e16, 3, True, None, -0.5]
)
def test_dumped_values_read_back(value: Any) -> None:
    assert parse_value(dump_yaml({"a": [value]})) == {"a": [value]}


def test_lines(tmp_path: Path) -> None:
    text = "# comment\na:\n  b: 1\n  c:\n    - x\n    - {d: 1,\n       e: 2}\n"
    file = read_yaml(_write(tmp_path, text))
    assert file.data == {"a": {"b": 1, "c": ["x", {"d": 1, "e": 2}]}}
    places = {("a",): 2, ("a", "b"): 3, ("a", "c"): 4, ("a", "c", 0): 5, ("a", "c", 1): 6, ("a", "c", 1, "e"): 7}
    assert {place: file.line_of(place) for place in places} == places
    assert file.line_of(["a", "missing", "deeper"]) == 2
    assert file.line_of(["missing"]) is None


def test_aliases_and_merge_keys(tmp_path: Path) -> None:
    text = "base: &base {p: 1, q: 2}\nother: &other {q: 3, r: 4}\nuse:\n  <<: [*base, *other]\n  p: 9\nsame: *base\n"
    file = read_yaml(_write(tmp_path, text))
    assert file.data["use"] == {"p": 9, "q": 2, "r": 4}
    assert file.data["same"] == file.data["base"]
    assert file.data["same"] is not file.data["base"]  # an override of one must not change the other
    assert file.line_of(["use", "p"]) == 5
    assert file.line_of(["use", "q"]) == 1


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    file = read_yaml(_write(tmp_path, b"\xef\xbb\xbfa: 1\r\nb: 2\r\n"))
    assert file.data == {"a": 1, "b": 2}
    assert file.line_of(["b"]) == 2


@pytest.mark.parametrize(
    ("text", "line", "remedy"),
    [
        ("a:\n\tb: 1\n", 2, "a tab where YAML allows only spaces; replace it by spaces"),
        ("task:\n  data 1\n  b: 2\n", 2, "a key without its colon, found 'data 1'; write `key: value`"),
        ("b: 1\na:1\n", 2, "a key without its colon; write `key: value`"),
        ("a: 1\n  b: 2\n", 2, "indented below line 1, which holds a value already"),
        ("a: b: c\n", 1, "a second colon in one value; put text that holds a colon in quotes"),
        ("a: [1, 2\nb: 3\n", 2, "not closed, or lacks a comma; add the missing `,` or `]`"),
        ("lr: {low: 1 high: 2}\n", 1, "not closed, or lacks a comma; add the missing `,` or `}`"),
        ("x: 1\na: 'text\nb: 1\n", 2, "ends too early; close the quote"),
        ("a:\n  b: 1\n c: 2\n", 3, "indentation that fits no line above"),
        ("a:\n  b: 1\n  - c\n", 3, "a list item where a key is expected"),
        ("a: *x\n", 1, "the alias *x before any anchor &x"),
        ("a: *.jpg\n", 1, "text that begins with * or &; put it in quotes"),
        ("a: &x 1\nb: &x 2\n", 2, "an anchor name used twice"),
        ("a: @x\n", 1, "a value that begins with @; put the value in quotes"),
        ("a: ]\n", 1, "a stray `]`"),
        ('a: "\\d"\n', 1, "use single quotes"),
        ("a: 1\n---\nb: 2\n", 2, "a second document; keep one"),
        ("a: 1\nb: \x01\n", 2, "the control character U+0001; remove it"),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", 4, "b.c: written twice, first in line 3; remove one"),
        ("1: 2\n", 1, "keys must be text, found 1; put it in quotes"),
        ("{a: 1}: 2\n", 1, "a list or mapping stands where a key is expected"),
        ("a: !!python/object:os.system 1\n", 1, "the tag !!python/object:os.system is not supported; remove it"),
        ("a: !!set {x}\n", 1, "the tag !!set is not supported; remove it"),
        ("a: !!int x\n", 1, "'x' is not a whole number"),
        ("a: " + "9" * 5000, 1, "more than 100 digits"),
        ('a: "\\ud800"\n', 1, "half of a \\u escape pair"),
        ("a: &x 1\nb:\n  <<: *x\n", 1, "<< takes a mapping"),
        ("- a\n", 1, "the top level must be a mapping, found a list; write lines of `key: value`"),
        ("lr 0.1\n", 1, "the top level must be a mapping, found text without a key"),
    ],
)
def test_broken_text(tmp_path: Path, text: str, line: int, remedy: str) -> None:
    path = _write(tmp_path, text)
    refusal = _refusal(path)
    assert refusal.startswith(f"{path}:{line}: ")
    assert remedy in refusal
    assert "\n" not in refusal


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_empty_file(tmp_path: Path, text: str) -> None:
    path = _write(tmp_path, text)
    assert _refusal(path) == f"{path}: is empty; begin with the sections task, space, scheduler and budget"


def test_not_utf8(tmp_path: Path) -> None:
    path = _write(tmp_path, b"a: 1\nb: \xff\n")
    assert _refusal(path) == f"{path}:2: is not UTF-8 text; save the file as UTF-8"


def test_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    _write(tmp_path, "a: 1\n")
    assert "there is no such file; check the path" in _refusal(tmp_path / "spce.yaml")
    assert "holds space.yaml" in _refusal(tmp_path / "spce.yaml")


def test_folder(tmp_path: Path) -> None:
    assert "is a folder; give the path of a YAML file" in _refusal(tmp_path)


def test_alias_bomb_is_refused(tmp_path: Path) -> None:
    rows = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert f"aliases expand to more than {MAX_NODES:,} values" in _refusal(_write(tmp_path, "\n".join(rows)))


def test_alias_inside_its_own_anchor_is_refused(tmp_path: Path) -> None:
    assert "an alias stands inside its own anchor" in _refusal(_write(tmp_path, "a: &x [*x]\n"))


@pytest.mark.parametrize("text", ["a: " + "[" * 2000, "\n".join(" " * depth + "a:" for depth in range(500))])
def test_deep_nesting_is_refused(tmp_path: Path, text: str) -> None:
    assert f"more than {MAX_DEPTH} levels of nesting" in _refusal(_write(tmp_path, text))
