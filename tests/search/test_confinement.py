"""Nothing that a person or a file names leads out of the folder of results."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.results import RunPaths
from search.run import UNUSABLE, main
from tests.search.space_files import GOOD, refusal, write

_OUTSIDE = [
    "../x",
    "..",
    ".",
    "/tmp/x",
    "a/b",
    "a\\b",
    "~",
    "~root",
    "",
    " ",
    ".hidden",
    "-o",
    "a\nb",
    "a\x00b",
    "x" * 101,
    "ü",
]


@pytest.mark.parametrize("name", _OUTSIDE, ids=repr)
def test_names_of_runs_are_plain_names_of_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    space = write(tmp_path, GOOD)
    before = sorted(tmp_path.rglob("*"))
    assert main([str(space), f"--name={name}", "--storage-path", str(tmp_path / "results")]) == UNUSABLE
    assert f"--name: {name!r} is not a usable folder name" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "..", "X Y"])
def test_so_are_those_in_a_space_file(tmp_path: Path, name: str) -> None:
    (line,) = refusal(write(tmp_path, f"name: '{name}'\n{GOOD}"))
    assert line.startswith(f"{tmp_path}/small.yaml:1: name: ")


def test_a_file_of_any_name_gives_a_plain_one(tmp_path: Path) -> None:
    from search.config import load_search

    path = write(tmp_path, GOOD, name="..ä b$(x).yaml")
    assert set(load_search(path).name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")


def test_every_path_of_a_run_lies_in_its_folder(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path / "run")
    own = [getattr(paths, name) for name, of in vars(RunPaths).items() if isinstance(of, property) and name != "name"]
    assert len(own) > 15
    assert all(path.is_relative_to(paths.root) for path in [*own, paths.trial(7)])
    with pytest.raises(ValueError, match="format code"):
        paths.trial("../../x")  # type: ignore[arg-type]


@pytest.mark.parametrize("named", ["/dev/zero", "/dev/stdin", "..", "/", "no\x00file"], ids=repr)
def test_only_files_are_included(tmp_path: Path, named: str) -> None:
    (line,) = refusal(write(tmp_path, f'include: "{named.encode("unicode_escape").decode()}"\n{GOOD}'))
    assert "small.yaml:1: include: " in line


def test_what_is_included_is_not_shown(tmp_path: Path) -> None:
    """A file that is no YAML may be a secret: of its text an error tells nothing."""
    (tmp_path / "auth_token").write_text("correct-horse-battery\n")
    told = "\n".join(refusal(write(tmp_path, f"include: auth_token\n{GOOD}")))
    assert "correct-horse" not in told
