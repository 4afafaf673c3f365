"""What is sent to a cluster, and what is refused."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path

import pytest

from cluster.package import collect
from tests.images import write_classes
from trainables.errors import ConfigError


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    write(tmp_path / "search" / "run.py", "print()")
    write(tmp_path / "spaces" / "x.yaml", "space: {}")
    return tmp_path


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def names(root: Path) -> list[str]:
    return [file.as_posix() for file in collect(root).files]


def test_what_nobody_needs_there_is_left_out(checkout: Path) -> None:
    for name in (
        ".git/config",
        ".venv/pyvenv.cfg",
        "search/__pycache__/run.pyc",
        ".mypy_cache/x.json",
        "results/first/study.log",
        ".env",
        "secrets/server.pem",
        "auth_token",
        ".git-credentials",
        "keys/id_rsa",
        "gcp-credentials.json",
        "secrets.yaml",
    ):
        write(checkout / name, "x")
    assert names(checkout) == ["search/run.py", "spaces/x.yaml"]


def test_ignore_files_are_honoured_and_the_later_line_wins(checkout: Path) -> None:
    for name in ("notes/a.txt", "notes/b.txt", "big/x.txt", "local.cfg"):
        write(checkout / name, "x")
    write(checkout / ".gitignore", "*.txt\nlocal.cfg\n")
    write(checkout / ".vistuneignore", "# comment\n!/notes/a.txt\n.*ignore\n")
    assert names(checkout) == ["notes/a.txt", "search/run.py", "spaces/x.yaml"]


def test_ignore_files_in_folders_count_for_these(checkout: Path) -> None:
    for name in ("notes/big/x.txt", "notes/keep.log", "notes/other.log", "big/x.txt"):
        write(checkout / name, "x")
    write(checkout / ".gitignore", "*.log\n.*ignore\n")
    write(checkout / "notes" / ".gitignore", "/big/\n!keep.log\n")
    assert names(checkout) == ["big/x.txt", "notes/keep.log", "search/run.py", "spaces/x.yaml"]


def test_runs_that_were_fetched_are_never_sent(checkout: Path) -> None:
    for name in ("study.log", "config.yaml", ".fetched.json"):
        write(checkout / "out" / "first" / name, "{}")
    assert names(checkout) == ["search/run.py", "spaces/x.yaml"]


def test_what_cannot_be_sent_is_named(checkout: Path) -> None:
    write(checkout / "notes" / ".vistuneignore", b"\xff\xfe")
    assert f"{checkout}/notes/.vistuneignore: is no text in UTF-8" in refusal(checkout)
    (checkout / "notes" / ".vistuneignore").unlink()
    write(checkout / os.fsdecode(b"caf\xe9.txt"), "x")
    assert "the name of 'caf\\udce9.txt' is no UTF-8" in refusal(checkout)


def test_spaces_alone_are_sent_with_the_code_that_is_installed(tmp_path: Path) -> None:
    write(tmp_path / "my.yaml", "space: {}")
    package = collect(tmp_path)
    assert [file.as_posix() for file in package.files] == ["my.yaml"]
    package.write(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        sent = set(archive.namelist())
        assert archive.read("search/run.py") == (Path(__file__).parents[2] / "search" / "run.py").read_bytes()
    assert {"my.yaml", "cluster/pack.py", "trainables/train.py", "search/report_page.css"} <= sent
    assert not [name for name in sent if "__pycache__" in name]
    write(tmp_path / "search" / "mine.py", "x")
    assert "search: the name is that of a package of vistune" in refusal(tmp_path)


def test_links_to_folders_are_not_followed(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write(elsewhere / "secret.txt", "x")
    (checkout / "data").symlink_to(elsewhere)
    assert names(checkout) == ["search/run.py", "spaces/x.yaml"]


def refusal(root: Path, **options: float) -> str:
    with pytest.raises(ConfigError) as caught:
        collect(root, **options)
    return str(caught.value)


def test_images_are_refused_with_the_line_that_leaves_them_out(checkout: Path) -> None:
    write_classes(checkout / "data" / "flowers", {"a": 15, "b": 15})
    told = refusal(checkout)
    assert "data/flowers holds 30 images; data are not sent" in told
    assert "-o task.data.root=" in told
    line = re.search(r"the line (\S+) in .vistuneignore", told)
    assert line is not None
    write(checkout / ".vistuneignore", line[1])
    assert names(checkout) == [".vistuneignore", "search/run.py", "spaces/x.yaml"]


def test_a_few_pictures_are_no_data(checkout: Path) -> None:
    write_classes(checkout / "docs", {"pictures": 5})
    assert len(names(checkout)) == 7


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (
            ("runs/a/study.log", "runs/a/config.yaml"),
            "runs holds results of searches; leave it out with the line /runs/",
        ),
        (("myenv/pyvenv.cfg", "myenv/lib/x.py"), "myenv is a Python environment; leave it out with the line /myenv/"),
    ],
)
def test_results_and_environments_elsewhere_are_refused(checkout: Path, files: tuple[str, ...], told: str) -> None:
    for name in files:
        write(checkout / name, "x")
    assert told in refusal(checkout)


def test_arrays_are_data(checkout: Path) -> None:
    write(checkout / "cache" / "images.npy", bytes(2 * 2**20))
    assert "cache/images.npy is data (2.0 MiB)" in refusal(checkout)


def test_too_large_a_package_names_the_largest_files(checkout: Path) -> None:
    write(checkout / "notes" / "huge.md", os.urandom(2 * 2**20))
    told = refusal(checkout, max_mib=1)
    assert "the package has 2.0 MiB, at most 1 are sent; the largest files are notes/huge.md (2.0 MiB)" in told
    assert collect(checkout, max_mib=3).num_bytes > 2 * 2**20


def test_the_same_files_make_the_same_package(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    out = tmp_path_factory.mktemp("out")
    collect(checkout).write(out / "a.zip")
    os.utime(checkout / "search" / "run.py", (1, 1))
    collect(checkout).write(out / "b.zip")
    assert (out / "a.zip").read_bytes() == (out / "b.zip").read_bytes()
    with zipfile.ZipFile(out / "a.zip") as archive:
        assert archive.read("search/run.py") == b"print()"
