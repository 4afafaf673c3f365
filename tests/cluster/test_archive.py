"""A run on its way through a log: what is sent, and what no archive can do to the folder it lands in."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.archive import MARK, PART, SEAL, printed, received, unpack
from cluster.pack import main as pack
from trainables.errors import DataError

SENT = {"study.log", "summary.json", "best_model/model.safetensors", "trials/0000/events.1", "logs/search.log"}
KEPT = {
    *(f"trials/0000/{name}" for name in ("checkpoint.pt", "checkpoint.previous.pt", "attempt", "best.safetensors")),
    *("final/a/checkpoint.previous.pt", "final/a/best.safetensors", "logs/tune/x", ".lock"),
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    root = tmp_path / "there" / "far"
    for name in (*SENT, *KEPT, "config.yaml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name * 5000)
    return root


def fetch(lines: list[str], target: Path) -> int:
    archive = io.BytesIO()
    num_files = received(lines, archive, max_mib=10)
    archive.seek(0)
    return unpack(archive, target, num_files=num_files, max_mib=10, mark={"run": "far"})


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_matters_comes_through_whole(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "here" / "far"
    fetch(["Running entrypoint", *printed(run, max_mib=10)], target)
    assert files_of(target) == {*SENT, "config.yaml", MARK}
    for name in SENT:
        assert (target / name).read_bytes() == (run / name).read_bytes()
    assert files_of(target.parent) == {f"far/{name}" for name in files_of(target)}  # nothing else is left


def test_again_brings_it_up_to_date_and_leaves_the_rest(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "here" / "far"
    fetch(list(printed(run, max_mib=10)), target)
    (target / "export").mkdir()
    (target / "export" / "mine.onnx").write_text("mine")
    (run / "study.log").write_text("longer")
    fetch(list(printed(run, max_mib=10)), target)
    assert (target / "study.log").read_text() == "longer"
    assert (target / "export" / "mine.onnx").read_text() == "mine"


def test_too_large_a_run_names_its_largest_files(run: Path) -> None:
    (run / "logs" / "search.log").write_bytes(bytes(3 * 2**20))
    with pytest.raises(DataError, match=r"at most 1 are fetched; the largest files are logs/search.log \(3 MiB\)"):
        next(printed(run, max_mib=1))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda lines: [*lines[:1], *lines[2:]], "its checksum differs"),
        (lambda lines: lines[:-1], "broke off before its end"),
        (lambda lines: [*lines[:1], f"{PART}!", *lines[1:]], "a part of the archive is damaged"),
        (lambda lines: [lines[0], *lines[1:-1] * 10_000, lines[-1]], "larger than 10 MiB"),
        (lambda _: ["far: no such run under /x; runs there: none"], "no such run under /x"),
        (lambda _: [SEAL + json.dumps({"sha256": "0", "files": 1})], "its checksum differs"),
    ],
)
def test_a_damaged_archive_changes_nothing(
    run: Path, tmp_path: Path, damage: Callable[[list[str]], list[str]], told: str
) -> None:
    target = tmp_path / "here" / "far"
    with pytest.raises(DataError, match=told):
        fetch(damage(list(printed(run, max_mib=10))), target)
    assert not target.parent.exists()


def member(name: str, *, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = 3 if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize(
    "bad",
    [
        member("../outside"),
        member("a/../../outside"),
        member("/etc/outside"),
        member("./a"),
        member("a\\b"),
        member("link", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        member("hard", kind=tarfile.LNKTYPE, link="../x"),
        member("device", kind=tarfile.CHRTYPE),
        member("pipe", kind=tarfile.FIFOTYPE),
        member("folder", kind=tarfile.DIRTYPE),
    ],
    ids=lambda info: info.name,
)
def test_nothing_leaves_the_folder(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for info in (member("good"), bad):
            tar.addfile(info, io.BytesIO(b"abc"))
    archive.seek(0)
    target = tmp_path / "results" / "far"
    with pytest.raises(DataError, match="not a file inside the run's folder; it is refused"):
        unpack(archive, target, num_files=2, max_mib=1, mark={})
    assert files_of(tmp_path) == set()


def test_an_archive_that_grows_is_refused(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        info = tarfile.TarInfo("zeros")
        info.size = 5 * 2**20
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    archive.seek(0)
    with pytest.raises(DataError, match="larger than was asked for"):
        unpack(archive, tmp_path / "far", num_files=1, max_mib=1, mark={})
    assert files_of(tmp_path) == set()


def test_a_run_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pack(["gone", "--storage-path", str(tmp_path)]) == 2
    assert "gone: no such run under" in capsys.readouterr().err
