"""What is refused here, before anything is sent."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from cluster.archive import MARK
from cluster.jobs import Job, latest
from cluster.submit import main
from tests.images import write_classes
from tests.search.cli import TINY, write_space

ADDRESS = ("--address", "http://127.0.0.1:9")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    # Where this machine has a token the client tells Ray to use it, which later tests of this process must not.
    with mock.patch.dict(os.environ):
        yield


def refused(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main([*arguments, *ADDRESS]) == 2
    return capfd.readouterr().err


def test_a_mistake_in_the_space(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_space(tmp_path, budget={"trials": -1})
    assert "budget.trials" in refused(capfd, "space.yaml")


def test_a_space_outside_of_what_is_sent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    space = write_space(tmp_path.parent / "outside")
    assert "is not in" in refused(capfd, str(space))


def test_a_space_that_is_ignored(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_space(tmp_path)
    (tmp_path / ".vistuneignore").write_text("*.yaml\n")
    assert "take it back with !/space.yaml" in refused(capfd, "space.yaml")


def test_a_path_with_dots_is_that_of_its_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_space(tmp_path)
    (tmp_path / "sub").mkdir()
    write_space(tmp_path.parent)
    assert "is not in" in refused(capfd, "../space.yaml")
    assert "http://127.0.0.1:9: nothing answers there" in refused(capfd, "sub/../space.yaml")


def test_what_a_space_builds_on_is_sent_as_well(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_space(tmp_path.parent / "outside")
    (tmp_path / "space.yaml").write_text("include: ../outside/space.yaml\n")
    assert "outside/space.yaml is not sent; have it in" in refused(capfd, "space.yaml")
    write_space(tmp_path, start_from=[{"run": "results/first"}])
    assert "start_from.0.run: results/first is a run here, and results are not sent" in refused(capfd, "space.yaml")


def test_images_that_are_here_only(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_space(tmp_path, task={"data": {"name": "folder", "root": "images"}})
    write_classes(tmp_path / "images", {"a": 3, "b": 3})
    told = refused(capfd, "space.yaml")
    assert "task.data.root: images is relative to this folder, and data are not sent" in told
    assert "-o task.data.root=/PATH/ON/THE/NODES" in told


def test_files_of_a_known_data_set_need_a_place_that_stays(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_space(tmp_path, task={"data": {"name": "cifar10", "download": True}})
    assert "task.data.root: cifar10 would lie in data/ of the job's folder" in refused(capfd, "space.yaml")


def test_results_that_could_not_be_written_here(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_space(tmp_path)
    (tmp_path / "file").touch()
    told = refused(capfd, "space.yaml", "--results", str(tmp_path / "file" / "below"))
    assert f"--results: nothing can be written to {tmp_path / 'file'}" in told


@pytest.mark.parametrize(
    ("content", "told"), [(None, "cannot be read (No such file"), ("\n", "is empty"), ("tokén", "that no token has")]
)
def test_a_token_that_cannot_be_sent(
    tmp_path: Path, content: str | None, told: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_space(tmp_path)
    path = tmp_path.parent / f"{tmp_path.name}.token"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    found = refused(capfd, "space.yaml")
    assert f"$RAY_AUTH_TOKEN_PATH: {path}: " in found or f"$RAY_AUTH_TOKEN_PATH: {path} " in found
    assert told in found and "ray get-auth-token" in found


def test_a_server_that_never_answers_is_given_up(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster import job_client

    monkeypatch.setattr(job_client, "TIMEOUT_S", (0.5, 0.5))
    write_space(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://me:pa55word@127.0.0.1:{server.getsockname()[1]}"
        assert main(["space.yaml", "--address", address]) == 2
    told = capfd.readouterr().err
    assert "something accepts there, but does not answer" in told
    assert "pa55word" not in told


def test_the_search_that_goes_on_stands_for_its_run() -> None:
    def job(name: str, status: str, exit_code: int | None, started_ms: int) -> Job:
        return Job(f"search-a-{name}", status, "a", None, exit_code, "", started_ms)

    first, refused = job("1", "RUNNING", None, 1), job("2", "FAILED", 2, 2)
    assert latest([first, refused]) is first
    ended, again = job("3", "SUCCEEDED", 0, 3), job("4", "FAILED", 1, 4)
    assert latest([ended, refused]) is ended
    assert latest([ended, again, refused]) is again
    assert latest([refused]) is refused


def test_weights_that_are_here_only(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_space(tmp_path, space={**TINY["space"], "weights": "results/first"})
    (tmp_path / "results" / "first").mkdir(parents=True)
    assert "space.weights: results/first is here only" in refused(capfd, "space.yaml")


@pytest.mark.parametrize("name", ["../outside", "a/b", "", ".hidden"])
def test_a_name_stays_inside_the_results(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    write_space(tmp_path)
    assert "is not a usable name of a run" in refused(capfd, "space.yaml", f"--name={name}")
    if name:
        assert "is not a usable name of a run" in refused(capfd, f"--fetch={name}")


def test_a_run_of_one_s_own_is_not_overwritten(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_space(tmp_path)
    (tmp_path / "results" / "mine").mkdir(parents=True)
    for given in (("space.yaml", "--name=mine"), ("--fetch=mine",), ("--resume=mine",)):
        assert "which would be overwritten" in refused(capfd, *given)
    (tmp_path / "results" / "mine" / MARK).write_text("{}")
    assert "nothing answers there" in refused(capfd, "--fetch=mine")


def test_a_folder_of_the_cluster_is_absolute(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_space(tmp_path)
    assert "give an absolute path" in refused(capfd, "space.yaml", "--storage-path=shared")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "give a space file, or one of --resume"),
        (["space.yaml", "--attach", "a"], "give a space file, or one of --resume"),
        (["--stop", "a", "--name", "b"], "-o and --name are for a new search"),
        (["--fetch", "a", "--extend", "+3"], "give --resume RUN with it"),
        (["space.yaml", "--package-mib", "nan"], "must be above 0 and finite, found nan"),
    ],
)
def test_commands_that_contradict_themselves(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, *ADDRESS])
    assert told in capsys.readouterr().err


def test_an_address_is_needed_and_is_that_of_a_job_server(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_space(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(["space.yaml"])
    assert "give --address http://HEAD:8265" in capfd.readouterr().err
    assert main(["space.yaml", "--address", "head:6379"]) == 2
    assert "'head:6379' is no address of a job server" in capfd.readouterr().err
    assert main(["space.yaml", "--address", "http://"]) == 2
    assert "'http:' is no address of a job server" in capfd.readouterr().err
