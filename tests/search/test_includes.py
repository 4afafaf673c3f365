"""A file builds on others: what it says comes on top, and every mistake is told where it was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.config import SearchConfig, load_search, to_yaml
from search.domains import CategoricalDomain, FloatDomain
from search.includes import read_with_includes
from tests.search.space_files import refusal, write
from trainables.errors import ConfigError

BASE = """\
name: base
task:
  data: {name: digits}
  split: {val: 0.3}
space:
  lr: {type: float, low: 1e-4, high: 1e-1, log: true}
  dropout: {type: float, low: 0, high: 0.5}
  batch_size: 64
scheduler: {max_epochs: 9, grace_period: 2}
budget: {trials: 10}
start_from:
  - {lr: 1e-3}
"""
TOP = """\
include: shared/base.yaml
space:
  lr: {low: 1e-3}
  dropout: {type: categorical, values: [0.0, 0.1]}
  weight_decay: 0.1
scheduler:
  max_epochs: 5
start_from: [{lr: 2e-3}]
"""


def _files(folder: Path, **texts: str) -> Path:
    """The files, the last of them the one to read; `__` in a name is a folder."""
    for name, text in texts.items():
        path = write(folder, text, name=f"{name.replace('__', '/')}.yaml")
    return path


def test_mappings_merge_and_the_rest_is_replaced(tmp_path: Path) -> None:
    config = load_search(_files(tmp_path, shared__base=BASE, top=TOP))
    assert config.name == "top"
    assert config.space == {
        "lr": FloatDomain(type="float", low=1e-3, high=1e-1, log=True),  # one bound of the domain
        "dropout": CategoricalDomain(type="categorical", values=(0.0, 0.1)),  # a domain written anew
        "batch_size": 64,
        "weight_decay": 0.1,
    }
    assert (config.scheduler.max_epochs, config.scheduler.grace_period) == (5, 2)
    assert config.task.split.val == 0.3
    assert config.start_from == ({"lr": 2e-3},)
    alone = write(tmp_path / "elsewhere", to_yaml(config), name="alone.yaml")
    assert load_search(alone) == config  # the resolved search needs no other file
    assert "include" not in SearchConfig.model_fields


def test_later_files_win_and_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    path = _files(
        tmp_path,
        sets__common=BASE,
        sets__one="include: common.yaml\nspace: {lr: 0.1}\nbudget: {trials: 11}\n",
        two="space: {lr: 0.2}\n",
        top="include: [sets/one.yaml, two.yaml]\nstart_from: []\n",
    )
    config = load_search(path)
    assert (config.space["lr"], config.budget.trials) == (0.2, 11)
    assert load_search(path, overrides=["space.lr=0.3"]).space["lr"] == 0.3


def test_mistakes_are_told_where_they_were_written(tmp_path: Path) -> None:
    base = BASE.replace("high: 0.5", "high: 1.5").replace("trials: 10", "trils: 10").replace("high: 1e-1", "high: 1e-5")
    path = _files(
        tmp_path, shared__base=base, top=TOP.replace("dropout:", "dropuot:").replace("[{lr: 2e-3}]", "[{lr: a}]")
    )
    shared = path.parent / "shared" / "base.yaml"
    places = [line.split(": ")[:2] for line in refusal(path)]
    assert places == [
        [f"{path}:3", "space.lr.low"],
        [f"{path}:4", "space.dropuot"],
        [f"{path}:8", "start_from.0.lr"],
        [f"{shared}:7", "space.dropout.high"],
        [f"{shared}:10", "budget.trils"],
    ]


def test_lines_of_what_is_replaced_are_forgotten(tmp_path: Path) -> None:
    path = _files(tmp_path, base="a:\n  b: [1, 2]\n  c: 3\n", top="# comment\ninclude: base.yaml\na:\n  b: [5]\n")
    file = read_with_includes(path)
    assert file.data == {"a": {"b": [5], "c": 3}}
    places = {
        loc: (file.path_of(loc).name, file.line_of(loc)) for loc in [("a",), ("a", "b", 0), ("a", "b", 1), ("a", "c")]
    }
    assert places == {
        ("a",): ("top.yaml", 3),
        ("a", "b", 0): ("top.yaml", 4),
        ("a", "b", 1): ("top.yaml", 4),
        ("a", "c"): ("base.yaml", 3),
    }


@pytest.mark.parametrize(
    ("texts", "where", "sentence"),
    [
        ({"top": "space: {}\ninclude: nowhere.yaml\n"}, "top.yaml:2", "include: there is no such file, found {0}/top"),
        ({"top": "include: top.yaml\n"}, "top.yaml:1", "the file includes itself, found {0}/top.yaml -> {0}/top.yaml;"),
        (
            {"a": "include: b.yaml\n", "b": "x: 1\ninclude: [a.yaml]\n", "top": "include: [a.yaml]\n"},
            "b.yaml:2",
            "found {0}/top.yaml -> {0}/a.yaml -> {0}/b.yaml -> {0}/a.yaml; remove one of these lines",
        ),
        ({"top": "include:\n  - 3\n"}, "top.yaml:1", "include: must be a path or a list of paths, found 3; write incl"),
        ({"top": "include: []\n"}, "top.yaml:1", "include: must be a path or a list of paths, found a list"),
        ({"a": "x: [\n", "top": "include: a.yaml\n"}, "a.yaml:", "not valid YAML"),
    ],
)
def test_refused(tmp_path: Path, texts: dict[str, str], where: str, sentence: str) -> None:
    path = _files(tmp_path, **texts)
    with pytest.raises(ConfigError) as caught:
        read_with_includes(path)
    assert str(caught.value).startswith(f"{tmp_path}/{where}")
    assert sentence.format(tmp_path) in str(caught.value)


def test_a_few_files_cannot_stand_for_a_million(tmp_path: Path) -> None:
    texts = {f"f{index}": f"include: [{', '.join([f'f{index - 1}.yaml'] * 10)}]\n" for index in range(1, 9)}
    path = _files(tmp_path, f0="x: 1\n", **texts)
    with pytest.raises(ConfigError, match="more than 100 files are included"):
        read_with_includes(path)


def test_a_path_may_begin_with_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "base.yaml").write_text(BASE)
    monkeypatch.setenv("HOME", str(home))
    path = _files(tmp_path, sets__mine="include: ~/base.yaml\nspace: {lr: 0.1}\nstart_from: []\n")
    assert load_search(path).space["lr"] == 0.1
