"""Where runs lie, here and in a job of a cluster; and what a node says that does not share it."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.node_checks import answer_in, load_fingerprint, problem_of_data
from search.storage import storage_root
from trainables.config import DataConfig
from trainables.errors import ConfigError


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if in the unpacked working directory of a job."""
    folder = tmp_path / "working_dir_files" / "_ray_pkg_0123456789abcdef" / "sub"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISTUNE_RESULTS", raising=False)
    assert storage_root(None) == Path("results")
    monkeypatch.setenv("VISTUNE_RESULTS", "/mnt/runs")
    assert storage_root(None) == Path("/mnt/runs")
    assert storage_root(Path("mine")) == Path("mine")


@pytest.mark.usefixtures("job")
def test_in_a_job_runs_outlive_its_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISTUNE_RESULTS", raising=False)
    assert storage_root(None) == tmp_path / "vistune" / "results"
    assert storage_root(Path("/mnt/runs")) == Path("/mnt/runs")
    with pytest.raises(ConfigError, match="--storage-path: mine is relative, and a job's working directory is deleted"):
        storage_root(Path("mine"))
    monkeypatch.setenv("VISTUNE_RESULTS", "mine")
    with pytest.raises(ConfigError, match=r"\$VISTUNE_RESULTS: mine is relative"):
        storage_root(None)


def test_what_a_node_says_of_a_folder(tmp_path: Path) -> None:
    assert answer_in(str(tmp_path), "secret", "node") == "does not see it (No such file or directory)"
    (tmp_path / "driver").write_text("other")
    assert answer_in(str(tmp_path), "secret", "node") == "has another folder of this name"
    (tmp_path / "driver").write_text("secret")
    assert answer_in(str(tmp_path), "secret", "node") is None
    assert (tmp_path / "node").is_file()


def test_what_a_node_says_of_images(tmp_path: Path) -> None:
    found = load_fingerprint(DataConfig(name="folder", root=str(tmp_path / "gone")))
    assert str(tmp_path / "gone") in str(problem_of_data(found, fingerprint="0" * 16))
    found = load_fingerprint(DataConfig(name="digits"))
    assert found[0] is not None
    assert problem_of_data(found, fingerprint=found[0]) is None
    assert "the images are not the driver's" in str(problem_of_data(found, fingerprint="0" * 16))
