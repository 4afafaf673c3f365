"""Whatever a space file holds, it loads or is refused by `ConfigError`: no other exception, and no bomb that hangs."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from search.config import SearchConfig, load_search, to_yaml
from search.yaml_file import MAX_NODES, parse_value
from tests.fuzzing import examples
from tests.search.space_files import GOOD, SHIPPED, refusal, write
from trainables.errors import ConfigError

_QUICK = examples(15)

_SPACES = [GOOD, *(path.read_text(encoding="utf-8") for path in SHIPPED)]

# What a hand may put where something else belongs, and what has undone YAML readers.
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**18, max_value=10**25),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from([1e308, -0.0, "1e400", "nan", "type", "lr", "../..", "\x00", "\ud800", "🙂", "0x", "null", "<<"]),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
_SYNTAX = st.sampled_from(
    [*string.punctuation, "\t", "\n", "\r", "\x00", "\x85", "\u2028", "\ufeff", "&a ", "*a", "!!", "<<: "]
)


def _loads_or_refuses(folder: Path, text: str | bytes, *overrides: str) -> SearchConfig | None:
    path = folder / "fuzzed.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    try:
        return load_search(path, overrides=overrides)
    except ConfigError as error:
        assert str(error).strip(), "an error without words"
        return None


@_QUICK
@given(content=st.binary(max_size=400) | st.text(max_size=400))
def test_any_content_loads_or_is_refused(tmp_path: Path, content: str | bytes) -> None:
    _loads_or_refuses(tmp_path, content)


@_QUICK
@given(data=st.data())
def test_a_space_with_characters_changed_loads_or_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(_SPACES))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 12)))
        text = text[:start] + data.draw(_SYNTAX | st.text(max_size=5)) + text[end:]
    _loads_or_refuses(tmp_path, text)


@_QUICK
@given(data=st.data())
def test_a_space_with_a_part_replaced_loads_as_the_same_again_or_is_refused(
    tmp_path: Path, data: st.DataObject
) -> None:
    parts = yaml.safe_load(data.draw(st.sampled_from(_SPACES)))
    parent, key = data.draw(st.sampled_from(list(_places(parts))))
    parent[key] = data.draw(_VALUES)
    config = _loads_or_refuses(tmp_path, yaml.safe_dump(parts, allow_unicode=True))
    if config is not None:
        assert load_search(write(tmp_path, to_yaml(config), name="again.yaml")) == config


@_QUICK
@given(
    key=st.sampled_from(["budget.trials", "space.lr", "space.lr.low", "space.arch.values.0", "task", "a..b", ""])
    | st.text(max_size=12),
    value=st.text(max_size=20) | _VALUES.map(repr),
)
def test_any_override_applies_or_is_refused(tmp_path: Path, key: str, value: str) -> None:
    _loads_or_refuses(tmp_path, GOOD, f"{key}={value}")


@_QUICK
@given(text=st.text(max_size=60))
def test_any_single_value_is_read_or_refused(text: str) -> None:
    try:
        parse_value(text)
    except ConfigError as error:
        assert str(error).strip()


def _places(parts: Any) -> Any:
    """Every place in the data, as what holds it and the key there."""
    for key, value in list(parts.items() if isinstance(parts, dict) else enumerate(parts)):
        yield parts, key
        if isinstance(value, dict | list):
            yield from _places(value)


_LAUGHS = "a0: &a0 [lol, lol]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
_MERGED = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}], k{i}: *a{i - 1}}}\n" for i in range(1, 30)
)


@pytest.mark.parametrize(
    ("bomb", "told"),
    [
        (_LAUGHS, f"aliases expand to more than {MAX_NODES:,} values"),
        (_MERGED, f"aliases expand to more than {MAX_NODES:,} values"),
        ("a: &a [*a]\n", "an alias stands inside its own anchor"),
        ("a: &a {b: *a}\n", "an alias stands inside its own anchor"),
        ("a: &a {<<: *a}\n", "an alias stands inside its own anchor"),
        ("a: " + "[" * 100_000 + "\n", "more than 50 levels of nesting"),
        ("a: " + "{b: " * 100_000 + "\n", "more than 50 levels of nesting"),
        ("".join(" " * i + "a:\n" for i in range(500)), "more than 50 levels of nesting"),
        ("- " * 50_000 + "a\n", "more than 50 levels of nesting"),
        ("a:\n" + "- 1\n" * 400_000, "more than 20,000 keys and values"),
        ("# " + "x" * 3_000_000, "larger than 2,000,000 bytes, so no search space"),
        (f"a: {'9' * 5_000}\n", "a whole number of more than 100 digits"),
        (f"a: 0x{'f' * 5_000}\n", "a whole number of more than 100 digits"),
        (f"a: 1e{'9' * 5_000}\n", "a: unknown key"),
        ("a: !!python/object/apply:os.system [exit]\n", "the tag !!python/object/apply:os.system is not supported"),
        ("a: !!binary aGFsbG8=\n", "the tag !!binary is not supported"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else None,
)
def test_bombs_are_refused(tmp_path: Path, bomb: str, told: str) -> None:
    assert told in "\n".join(refusal(write(tmp_path, bomb)))
