"""A search whose run lies in an object store: nothing of it is only on the machine that drove it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from optuna.trial import TrialState

from cluster.archive import wanted
from search import mirrored_run
from search.list import main as list_runs
from search.mirrored_run import followed, is_driven
from search.results import RunPaths, write_text
from search.run import main as run
from search.session import held
from search.storage import find_run
from tests.object_server import BUCKET, object_server
from tests.search.cli import TIMEOUT_S, finish, start, summary_of, trials_of, wait_until, write_space
from trainables.errors import ConfigError
from trainables.mirrors import local_path, require_private
from trainables.object_store import fetch, publish, remove, size_of

URI = f"s3://{BUCKET}/team/runs"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    with object_server(tmp_path) as told:
        for name, value in told.items():
            monkeypatch.setenv(name, value)
        yield told


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def on_a_new_machine(folder: Path, monkeypatch: pytest.MonkeyPatch, *, without: Sequence[Path] = ()) -> Path:
    """Where the run's copy will be; what machines of before had is gone."""
    for path in without:
        shutil.rmtree(path)
    monkeypatch.setenv("VISTUNE_MIRRORS", str(folder))
    return local_path(URI) / "first"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Holds that are renewed often, and a driver that is missed soon; stores tell whole seconds."""
    quick = {"_EVERY_S": 0.5, "_LOOK_EVERY_S": 0.5, "_SETTLED_AFTER_S": 0.5, "_GONE_AFTER_S": 4.0}
    for name, seconds in quick.items():
        monkeypatch.setattr(mirrored_run, name, seconds)


@pytest.mark.usefixtures("server", "quick")
def test_a_run_has_one_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = RunPaths(on_a_new_machine(tmp_path, monkeypatch))
    with followed(paths):
        assert is_driven(paths)
        with pytest.raises(ConfigError, match="another process is running this search"), followed(paths):
            pass
        assert is_driven(paths), "the other did not take the hold away"
    assert not is_driven(paths)


@pytest.mark.usefixtures("server", "quick")
def test_a_driver_that_died_is_waited_for_and_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = RunPaths(on_a_new_machine(tmp_path, monkeypatch))
    mirrored_run._Hold(paths.root / "driver.json").take()  # and not renewed
    began = time.monotonic()
    with followed(paths):
        assert time.monotonic() - began > 2


@pytest.mark.usefixtures("server", "quick")
def test_of_two_drivers_that_see_no_other_one_has_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = RunPaths(on_a_new_machine(tmp_path, monkeypatch))
    in_step, one_at_a_time = threading.Barrier(2), threading.Lock()  # they have one copy here, on one machine
    is_others, write = mirrored_run._Hold.is_others, mirrored_run._Hold._write

    def looks_before_the_other_writes(hold: mirrored_run._Hold) -> bool:
        with one_at_a_time:
            found = is_others(hold)
        in_step.wait(TIMEOUT_S)
        return found

    def writes_before_the_other_reads(hold: mirrored_run._Hold) -> None:
        with one_at_a_time:
            write(hold)
        in_step.wait(TIMEOUT_S)

    monkeypatch.setattr(mirrored_run._Hold, "is_others", looks_before_the_other_writes)
    monkeypatch.setattr(mirrored_run._Hold, "_write", writes_before_the_other_reads)
    holds = [mirrored_run._Hold(paths.root / "driver.json") for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        refused = [future.exception() for future in [pool.submit(hold.take) for hold in holds]]
    assert sorted(type(each) for each in refused if each is not None) == [ConfigError]
    monkeypatch.setattr(mirrored_run._Hold, "_write", write)
    holds[refused.index(None)].renew()  # it has it still


@pytest.mark.usefixtures("server", "quick")
def test_a_driver_that_lost_its_run_sends_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, lost = RunPaths(on_a_new_machine(tmp_path, monkeypatch)), threading.Event()
    with followed(paths, on_lost=lost.set):
        mirrored_run._Hold(paths.root / "driver.json")._write()  # as after a minute without a word of the first
        assert lost.wait(TIMEOUT_S)
        paths.log.parent.mkdir(parents=True, exist_ok=True)
        paths.log.write_text("not for the store")
        write_text(paths.summary, "nor this")
        remove(paths.root / "driver.json")
        mirrored_run.remove_run(paths)
    assert is_driven(paths), "the other's hold stays"
    assert size_of(paths.log) is None
    assert size_of(paths.summary) is None


@pytest.mark.usefixtures("server", "quick")
def test_whoever_reads_a_run_beside_its_driver_leaves_the_driver_s_copy_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = RunPaths(on_a_new_machine(tmp_path, monkeypatch))
    with held(paths), followed(paths):
        write_text(paths.config, write_space(tmp_path / "a").read_text())
        publish(paths.study)
        paths.study.write_text("what the store does not have yet\n")
        paths.log.parent.mkdir(exist_ok=True)
        paths.log.write_text("nor this\n")
        monkeypatch.setattr(mirrored_run, "_EVERY_S", 60.0)  # this driver has sent nothing so far
        assert find_run("first", storage_path=paths.root.parent).root == paths.root
        assert list_runs(["--storage-path", URI]) == 0
        assert run(["--resume", "first", "--storage-path", URI]) == 2
        assert "another process is running this search" in capfd.readouterr().err
        assert paths.study.read_text() == "what the store does not have yet\n"
        assert paths.log.read_text() == "nor this\n"


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("name", ["", ".", "..", "../../../..", "../../../../precious", "second"])
def test_a_run_that_is_not_there_takes_nothing_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    first = on_a_new_machine(tmp_path, monkeypatch)
    kept = [first / "config.yaml", tmp_path / "precious" / "a.txt", tmp_path / "vistune-mirrors" / "b.txt"]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with pytest.raises(ConfigError, match="no such run"):
        find_run(name, storage_path=first.parent)
    assert all(path.is_file() for path in kept)


@pytest.mark.usefixtures("server")
def test_a_run_beside_this_folder_is_found_whatever_the_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = on_a_new_machine(tmp_path, monkeypatch).parent
    write_space(tmp_path / "runs" / "a").rename(tmp_path / "runs" / "a" / "config.yaml")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert find_run("../runs/a", storage_path=storage).root.resolve() == (tmp_path / "runs" / "a").resolve()


@pytest.mark.parametrize("given", ["s3://[x/y", "s3://b/runs#2", "s3://b/runs#"])
def test_what_is_no_address_is_said(given: str) -> None:
    with pytest.raises(ConfigError, match=r"is no address|has a #"):
        local_path(given)


@pytest.mark.parametrize("given", ["s3://../x", "s3://b/../../x", "s3://b/a//c", "gs://b/./x", "s3:///x"])
def test_an_address_stays_inside_the_copies(given: str) -> None:
    with pytest.raises(ConfigError, match="BUCKET/FOLDER"):
        local_path(given)


@pytest.mark.usefixtures("server")
def test_a_bucket_that_is_not_there_is_said_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VISTUNE_MIRRORS", str(tmp_path))
    space = write_space(tmp_path / "a")
    where = ["--storage-path", "s3://nosuchbucket/runs"]
    told = "s3://nosuchbucket/runs: there is no bucket nosuchbucket; make it first"
    for main, arguments in ((run, [str(space), "--name", "a"]), (run, ["--resume", "a"]), (list_runs, [])):
        assert main([*arguments, *where]) == 2
        assert told in capsys.readouterr().err
    assert run(["--resume", "s3://nosuchbucket/runs/a"]) == 2
    assert "there is no bucket nosuchbucket" in capsys.readouterr().err
    assert not (tmp_path / "vistune-mirrors").exists()


@pytest.mark.usefixtures("server")
def test_a_run_that_is_not_in_the_store_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VISTUNE_MIRRORS", str(tmp_path))
    assert run(["--resume", f"{URI}/a"]) == 2
    assert f"{URI}/a: there is no run; python -m search.list --storage-path {URI}" in capsys.readouterr().err
    assert list_runs(["--storage-path", URI]) == 0
    assert f"no runs in {URI}" in capsys.readouterr().out


def test_a_store_out_of_reach_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("VISTUNE_MIRRORS", str(tmp_path))
    for main, arguments in ((run, [str(write_space(tmp_path / "a")), "--name", "a"]), (list_runs, [])):
        assert main([*arguments, "--storage-path", URI]) == 2
        told = capsys.readouterr().err
        assert f"{URI}: cannot be reached (" in told and "AWS_ENDPOINT_URL" in told


@pytest.mark.ray
@pytest.mark.slow
def test_begun_on_one_machine_ended_on_another_and_used_on_a_third(
    tmp_path: Path, server: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = {"max_epochs": 8, "grace_period": 2, "reduction_factor": 2}
    space = write_space(tmp_path, scheduler=scheduler, budget={"trials": 6}, final={"top_k": 1, "seeds": 2})
    run = on_a_new_machine(tmp_path / "one", monkeypatch)
    driver = start(space, "--name", "first", "--storage-path", URI)
    wait_until(lambda: sum(trial.state.is_finished() for trial in trials_of(run)) >= 2 or driver.poll() is not None)
    driver.send_signal(signal.SIGKILL)
    finish(driver)
    ended_before = {trial.number: trial.value for trial in trials_of(run) if trial.state is TrialState.COMPLETE}

    again = command("search.run", space, "--name", "first", "--storage-path", URI)
    assert again.returncode == 2 and f"{URI}/first: a run of this name exists" in again.stderr

    run = on_a_new_machine(tmp_path / "two", monkeypatch, without=[tmp_path / "one"])
    remove(run / "driver.json")  # as if a minute had passed
    ended = command("search.run", "--resume", "first", "--storage-path", URI)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = {trial.number: trial.value for trial in trials_of(run) if trial.state is TrialState.COMPLETE}
    assert ended_before.items() <= found.items(), "what had ended stays as it was"
    summary = summary_of(run)

    run = on_a_new_machine(tmp_path / "three", monkeypatch, without=[tmp_path / "two"])
    listed = command("search.list", "--storage-path", URI)
    assert listed.returncode == 0 and "first" in listed.stdout and "finished" in listed.stdout, listed.stderr
    start_from = [{"run": f"{URI}/first"}, {"run": f"{URI}/second"}]
    later = command("search.run", write_space(tmp_path / "later", start_from=start_from), "--dry-run", "--quick")
    assert later.returncode == 2 and f"no such run, found {URI}/second" in later.stderr, later.stderr
    assert "start_from.0" not in later.stderr
    packed = command("cluster.pack", "first", "--storage-path", URI)
    assert packed.returncode == 0, packed.stderr
    sent = {path.parts[0] for path in wanted(run)}
    assert {"trials", "final"} <= sent, "curves and retrainings come along, although no copy of them was here"
    assert not any(path.suffix == ".safetensors" for path in (run / "trials").rglob("*"))
    exported = command("search.export", "first", "--storage-path", URI, "--output", tmp_path / "model")
    assert exported.returncode == 0, exported.stdout + exported.stderr
    assert (tmp_path / "model" / "model.onnx").is_file()
    assert json.loads((run / "test" / "metrics.json").read_text())["top1"] == summary["test"]["top1"]
    assert (run / "report.html").is_file()
    fetch(run)
    left = [path.relative_to(run) for path in run.rglob("*") if path.name.startswith("checkpoint")]
    assert {(path.parts[0], path.name) for path in left} == {("final", "checkpoint.pt")}, "which say what has been done"
    told = ended.stdout + ended.stderr + (run / "logs" / "search.log").read_text() + (run / "report.html").read_text()
    assert server["AWS_SECRET_ACCESS_KEY"] not in told


def test_copies_lie_in_a_folder_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISTUNE_MIRRORS", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = tmp_path / f"vistune-{os.getuid()}"
    assert local_path("s3://bucket/runs") == own / "vistune-mirrors" / "s3" / "bucket" / "runs"
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    own.chmod(0o777)
    with pytest.raises(ConfigError, match=r"others may write there; remove it, or give .* \$VISTUNE_MIRRORS"):
        local_path("s3://bucket/runs")
    own.rmdir()
    require_private(own / "vistune-mirrors" / "s3" / "bucket" / "run")  # as on a node that hears of the path only
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    own.rmdir()
    own.touch()
    with pytest.raises(ConfigError, match="others may write there"):
        require_private(own / "vistune-mirrors" / "s3" / "bucket" / "run")
    own.unlink()
    own.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="others may write there"):
        local_path("s3://bucket/runs")


@pytest.mark.parametrize("given", ["https://KEY:SECRET@minio/b", "s3://KEY:SECRET@b#x", "s3://b/c?key=SECRET"])
def test_no_message_shows_credentials(given: str) -> None:
    with pytest.raises(ConfigError) as refused:
        local_path(given)
    assert "SECRET@" not in str(refused.value) and "=SECRET" not in str(refused.value)
