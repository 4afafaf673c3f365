"""Which run the arguments of `search.run` mean: a new one, or one that is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.config import load_search, to_yaml
from search.results import RunPaths
from search.run import _parse
from search.which_run import ChosenRun, choose_run
from tests.search.cli import write_space
from trainables.errors import ConfigError


def chosen(*arguments: str | Path, results: Path) -> ChosenRun:
    return choose_run(_parse([*map(str, arguments), "--storage-path", str(results)]))


@pytest.fixture
def begun(tmp_path: Path) -> RunPaths:
    """A run of the name `first`, of 7 trials."""
    paths = RunPaths(tmp_path / "results" / "first")
    paths.root.mkdir(parents=True)
    config = load_search(write_space(tmp_path / "then", budget={"trials": 7}))
    paths.config.write_text(to_yaml(config))
    return paths


def test_a_job_that_is_started_again_goes_on_with_its_run(begun: RunPaths, tmp_path: Path) -> None:
    space = write_space(tmp_path, budget={"trials": 3})
    again = ("--or-resume", "-o", "budget.trials=5")
    found = chosen(space, "--name", "first", *again, results=begun.root.parent)
    assert (found.resumed, found.paths.root, found.config.budget.trials) == (True, begun.root, 7)
    new = chosen(space, "--name", "second", *again, results=begun.root.parent)
    assert (new.resumed, new.config.budget.trials) == (False, 5)
    with pytest.raises(ConfigError, match="a run of this name exists; go on with --resume first"):
        chosen(space, "--name", "first", results=begun.root.parent)


def test_a_false_start_is_begun_again_and_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "first"
    folder.mkdir(parents=True)
    (folder / ".lock").touch()
    space = write_space(tmp_path)
    assert not chosen(space, "--name", "first", "--or-resume", results=folder.parent).resumed
    (folder / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="first: is no run of vistune; remove it, or give another --name"):
        chosen(space, "--name", "first", "--or-resume", results=folder.parent)


@pytest.mark.parametrize("arguments", [["x.yaml", "--or-resume"], ["--resume", "first", "--or-resume"]])
def test_or_resume_needs_what_both_need(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        _parse(arguments)
    assert "--or-resume" in capsys.readouterr().err.splitlines()[-1]
