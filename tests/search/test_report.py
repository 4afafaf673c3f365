"""The command that writes a run's page again, over folders as searches leave them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from search.report import main
from search.results import write_json
from tests.search.test_html_report import Page, drawn, stored_run


def test_a_run_that_was_killed_gets_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths, _ = stored_run(tmp_path / "results" / "one", drawn(20), state=None)
    before = {path: path.read_bytes() for path in paths.root.rglob("*") if path.is_file()}
    assert main(["one", "--storage-path", str(tmp_path / "results")]) == 0
    assert capsys.readouterr().out == f"{paths.report}\n"
    page = Page(paths.report)
    assert "This run is unfinished" in page.shown
    assert {"history", "curves", "rungs", "leaderboard"} <= page.sections
    assert {
        path: path.read_bytes() for path in paths.root.rglob("*") if path != paths.report and path.is_file()
    } == before


def test_a_page_that_is_lost_is_written_as_it_was(tmp_path: Path) -> None:
    paths, _ = stored_run(tmp_path / "one", drawn(20), test={"trial": 0, "images": 200, "top1": 0.86})
    assert main([str(paths.root)]) == 0
    first = paths.report.read_bytes()
    paths.report.unlink()
    assert main([str(paths.root)]) == 0
    assert paths.report.read_bytes() == first


def test_what_cannot_be_reported_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths, _ = stored_run(tmp_path / "one", drawn(3))
    assert main(["two", "--storage-path", str(tmp_path)]) == 2
    assert f"two: no such run under {tmp_path}; runs there: one" in capsys.readouterr().err
    summary = json.loads(paths.summary.read_text())
    write_json(paths.summary, {**summary, "final": {"candidates": [{"trial": 0}]}})
    assert main([str(paths.root)]) == 2
    assert f"{paths.root}: a file of the run does not hold what vistune writes there" in capsys.readouterr().err
    write_json(paths.summary, summary)
    paths.report.mkdir()
    assert main([str(paths.root)]) == 2
    assert f"{paths.report}: cannot be written: " in capsys.readouterr().err
