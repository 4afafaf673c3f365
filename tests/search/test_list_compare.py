"""The commands that look at several runs, over folders as searches leave them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from search.compare import main as compare
from search.ledger import TrialRecord
from search.list import _metric, list_runs
from search.list import main as list_main
from search.parameters import parse_space
from search.report_comparison import _param
from search.results import write_json
from tests.search.test_html_report import Page, drawn, stored_run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three runs, two of which may be compared, beside what is none."""
    folder = tmp_path / "results"
    folder.mkdir()
    test = {"trial": 0, "images": 200, "top1": 0.86, "interval95": [0.805, 0.901]}
    one, _ = stored_run(folder / "one", drawn(30), test=test)
    two, _ = stored_run(folder / "two", drawn(40, seed=1), test=test | {"interval95": [0.91, 0.95]},
                        sampler={"name": "random"})  # fmt: skip
    for paths, interval in ((one, [0.805, 0.901]), (two, [0.91, 0.95])):
        write_json(paths.test / "metrics.json", test | {"interval95": interval})
    stored_run(
        folder / "other", loss_trials(), fingerprint="f" * 16, task={"data": {"name": "digits"}, "metric": "val_loss"}
    )
    (folder / "README.md").write_text("no run")
    (folder / "notes").mkdir()
    return folder


def loss_trials() -> list[TrialRecord]:
    return [replace(record, score=None, curve={}) for record in drawn(3)]


def test_every_run_is_listed_with_what_it_reached(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = {line.name: line for line in list_runs(runs)}
    assert set(lines) == {"one", "two", "other"}
    best = max(record.score for record in drawn(30) if record.score is not None)
    assert (lines["one"].state, lines["one"].trials, lines["one"].metric) == ("finished", 30, "val_top1")
    assert lines["one"].best == pytest.approx(best)
    assert lines["one"].test == 0.86
    assert lines["other"].best is None
    files = [path for path in (runs / "one").rglob("*") if path.is_file()]
    assert lines["one"].num_bytes == sum(path.stat().st_size for path in files)
    assert list_main(["--storage-path", str(runs)]) == 0
    out = capsys.readouterr().out
    assert [word in out for word in ("one", "finished", "0.8600", "notes", "README")] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_a_run_that_is_worked_on_is_running(runs: Path) -> None:
    (runs / "one" / "summary.json").unlink()
    states = {line.name: line.state for line in list_runs(runs)}
    assert states["one"] == "unfinished"
    with FileLock(runs / "one" / ".lock"), FileLock(runs / "two" / ".lock"):
        lines = {line.name: line for line in list_runs(runs)}
        assert (lines["one"].state, lines["two"].state) == ("running", "running")
        assert lines["one"].trials == 30  # read from the study


def test_a_damaged_run_does_not_hide_the_others(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "one" / "summary.json").write_text("{")
    (runs / "two" / "config.yaml").unlink()
    states = {line.name: line.state for line in list_runs(runs)}
    assert states == {"one": "damaged", "two": "damaged", "other": "finished"}
    assert list_main(["--storage-path", str(runs)]) == 0
    out = capsys.readouterr().out
    assert "one: summary.json: is no JSON" in out
    assert "two: config.yaml: is missing" in out


def test_no_folder_and_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert list_main(["--storage-path", str(tmp_path)]) == 0
    assert "no runs in" in capsys.readouterr().out
    assert list_main(["--storage-path", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_listing_imports_nothing_slow(runs: Path) -> None:
    code = (
        "import sys; from search.list import main; main(sys.argv[1:]); "
        "print(sorted({'ray', 'torch', 'optuna', 'numpy', 'pydantic'} & set(sys.modules)), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "--storage-path", str(runs)]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert told.stderr == "[]\n"


def test_two_runs_side_by_side(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "pages" / "compared.html"
    assert compare(["one", "two", "--storage-path", str(runs), "--html", str(page)]) == 0
    out = capsys.readouterr().out
    differing = [line.split() for line in out.splitlines() if line.startswith("sampler.")]
    assert differing == [["sampler.name", "curve_gp", "random"]]
    assert "top1 0.8600 (0.8050 to 0.9010)" in out
    assert "The test intervals (top1) of one and two do not overlap: two is better." in out
    assert "different" not in out
    read = Page(page)
    assert {"results", "progress", "settings", "importance"} <= read.sections
    scores = [record.score for record in drawn(30) if record.score is not None]
    assert [run["name"] for run in read.data["runs"]] == ["one", "two"]
    assert read.data["runs"][0]["points"][-1][1:] == [
        sum(record.epochs for record in drawn(30)),
        pytest.approx(max(scores)),
    ]


def test_what_cannot_be_compared_is_said(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "compared.html"
    assert compare(["one", "other", "--storage-path", str(runs), "--html", str(page)]) == 0
    out = capsys.readouterr().out
    assert "The runs have different metrics (one: val_top1; other: val_loss): their scores are not compared." in out
    assert "The runs are about different images" in out
    assert "best val_top1 after" not in out
    assert "overlap" not in out
    read = Page(page)
    assert "different metrics" in read.shown
    assert "progress" not in read.sections
    assert read.data["runs"] == []


def test_reading_changes_nothing(runs: Path) -> None:
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    assert compare(["one", "two", "--storage-path", str(runs)]) == 0
    list_runs(runs)
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["one", "nine"], "nine: no such run under"),
        (["one", "one"], "one: named twice"),
    ],
)
def test_unusable_requests(runs: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare([*arguments, "--storage-path", str(runs)]) == 2
    assert told in capsys.readouterr().err


def test_one_run_is_nothing_to_compare(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        compare(["one", "--storage-path", str(runs)])
    assert ended.value.code == 2
    assert "two runs or more" in capsys.readouterr().err


def test_a_damaged_study_is_named(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "one" / "study.log").write_text("no journal\n" * 3)
    assert compare(["one", "two", "--storage-path", str(runs)]) == 2
    assert "study.log: cannot be read as a study" in capsys.readouterr().err


def test_all_that_is_said_of_a_range_is_compared() -> None:
    plain = {"type": "float", "low": 1e-4, "high": 1e-1, "log": True}
    said = [{}, {"prior": 1e-3}, {"scaled_by": "batch_size"}, {"tags": ["optim"]}, {"when": {"optimizer": "sgd"}}]
    params = [parse_space({"lr": {**plain, **each}})[0]["lr"] for each in said]
    assert len({_param(param) for param in params}) == len(said)


def test_text_of_a_configuration_is_read_as_text(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("task: {metric: val_loss, data: {label_separator: =}}\ntags: [2024-13-45]\n")
    assert _metric(path) == "val_loss"
