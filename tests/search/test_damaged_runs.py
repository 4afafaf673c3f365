"""Files of a run, damaged in any way: they are read, or named in an error that says what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.config import load_search
from search.list import list_runs
from search.report import rewrite_report
from search.report_source import read_source
from search.results import RunPaths
from search.study import StudyStore
from tests.fuzzing import examples
from tests.search.test_html_report import drawn, stored_run
from trainables.errors import ConfigError, VistuneError

_QUICK = examples(8)
_FILES = ("study.log", "summary.json", "environment.json", "config.yaml", "test/metrics.json")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "one"
    paths, _ = stored_run(folder, drawn(6), test={"trial": 0, "top1": 0.9}, sampler={"name": "tpe"})
    paths.test.mkdir()
    (paths.test / "metrics.json").write_text('{"trial": 0, "images": 200, "top1": 0.9}')
    return folder


def _look(folder: Path) -> None:
    """All that reads a run without training."""
    paths = RunPaths(folder)
    for action in (lambda: rewrite_report(str(folder), storage_path=folder.parent), lambda: _reopen(paths)):
        try:
            action()
        except VistuneError as error:
            assert str(folder) in str(error)
    (line,) = list_runs(folder.parent)
    assert line.name == "one"


def _reopen(paths: RunPaths) -> None:
    config = read_source(paths).config
    space = config.search_space
    StudyStore(paths.study, name=paths.name, metric=config.metric, sampler=config.sampler, space=space).records()


@pytest.mark.parametrize("name", _FILES)
@_QUICK
@given(data=st.data())
def test_changed_and_shortened_files(sound: Path, tmp_path: Path, data: st.DataObject, name: str) -> None:
    folder = tmp_path / "results" / "one"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sound, folder)
    content = bytearray((folder / name).read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    (folder / name).write_bytes(content)
    _look(folder)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@_QUICK
@given(data=st.data())
def test_a_journal_with_other_values_in_a_line(sound: Path, tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "results" / "one"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sound, folder)
    lines = (folder / "study.log").read_text().splitlines()
    number = data.draw(st.integers(0, len(lines) - 1))
    entry: Any = json.loads(lines[number])
    entry[data.draw(st.sampled_from(sorted(entry)))] = data.draw(_JSON)
    lines[number] = json.dumps(data.draw(st.sampled_from([entry, None, 3, [], {}])) or entry)
    (folder / "study.log").write_text("\n".join(lines) + "\n")
    _look(folder)


@pytest.mark.parametrize("name", [name for name in _FILES if name.endswith("json")])
@pytest.mark.parametrize("text", ["", "[]", "null", "3", "[" * 100_000, "\x00"], ids=str.__len__)
def test_a_file_with_another_content_is_named(sound: Path, tmp_path: Path, name: str, text: str) -> None:
    folder = tmp_path / "results" / "one"
    shutil.copytree(sound, folder)
    (folder / name).write_text(text)
    with pytest.raises(ConfigError, match=f"{name}: (cannot be read|must hold a JSON object)"):
        read_source(RunPaths(folder))
    _look(folder)


def test_a_damaged_study_is_not_gone_on_with(sound: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "one"
    shutil.copytree(sound, folder)
    lines = (folder / "study.log").read_text().splitlines()
    (folder / "study.log").write_text("\n".join([*lines[:3], "no journal", *lines[3:]]) + "\n")
    summary = json.loads((folder / "summary.json").read_text())
    for state, listed in (("finished", "finished"), ("interrupted", "damaged")):  # only that one is to be resumed
        (folder / "summary.json").write_text(json.dumps({**summary, "state": state}))
        (line,) = list_runs(folder.parent)
        assert line.state == listed
    assert "study.log: cannot be read as a study" in line.problem
    config = load_search(folder / "config.yaml")
    with pytest.raises(
        ConfigError, match=r"study\.log: cannot be read as a study .*; restore it from a copy, or start"
    ):
        StudyStore(
            folder / "study.log", name="one", metric="val_top1", sampler=config.sampler, space=config.search_space
        )
