"""A search on a real cluster, from here: sent, followed, left, stopped, resumed, fetched; and who is not let in."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import pytest

from tests.cluster.head import ROOT, Head, may_hide, plain_environment, running_head, running_node
from tests.cluster.proxy import way_to
from tests.search.cli import finish, summary_of, trials_of, wait_until, write_space

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with running_head() as head:
        yield head


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory as a person has it: the code, a space, and things that are not to be sent."""
    root = tmp_path_factory.mktemp("checkout")
    for package in ("search", "trainables", "cluster"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "results" / "old").mkdir(parents=True)
    (root / "results" / "old" / "study.log").write_text("{}")
    write_space(root, scheduler={"name": "none", "max_epochs": 100}, budget={"trials": 1000})  # more than it will train
    return root


def submit(
    *arguments: str | Path, folder: Path, environment: Mapping[str, str], address: str, out: IO[str] | None = None
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cluster.submit", "--address", address, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=dict(environment), stdout=out or pipe, stderr=pipe, text=True)


def test_sent_left_followed_stopped_resumed_and_fetched(head: Head, folder: Path) -> None:
    def ask(*arguments: str | Path, address: str = head.address, out: IO[str] | None = None) -> subprocess.Popen[str]:
        environment = {key: value for key, value in head.environment().items() if key != "PYTHONPATH"}
        for proxy in ("HTTP_PROXY", "ALL_PROXY"):
            environment[proxy] = "http://127.0.0.1:9"  # where nobody listens; it is no way to this machine
        return submit(*arguments, folder=folder, environment=environment, address=address, out=out)

    there, here = head.home / "vistune" / "results" / "far", folder / "results" / "far"
    status, out, err = finish(ask("space.yaml", "--name", "far", "--detach"))
    assert (status, err) == (0, ""), out
    assert "submitted search-far-" in out
    assert "--attach far" in out

    seen = head.home / "seen"
    with way_to(int(head.address.rsplit(":", 1)[1])) as way, seen.open("w") as file:
        follower = ask("--attach", "far", address=f"http://127.0.0.1:{way.port}", out=file)
        wait_until(lambda: "images: 8x8" in seen.read_text())
        way.cut()
        wait_until(lambda: "the connection broke" in seen.read_text())
        wait_until(lambda: any(trial.intermediate_values for trial in trials_of(there)))
        time.sleep(3)
        follower.send_signal(signal.SIGINT)
        status, _, err = finish(follower)
    out = seen.read_text()
    assert out.count("searching far: digits") == 1  # after the cut it goes on where it was
    assert (status, err) == (130, "")
    assert "detached: the search goes on" in out
    assert not (there / "summary.json").exists()

    status, out, err = finish(ask("--stop", "far"))
    assert (status, err) == (130, ""), out
    assert "ending: what is finished is saved" in out
    assert "cluster.submit --resume far" in out
    assert summary_of(here)["state"] == "interrupted"  # as after Ctrl-C, not killed
    assert json.loads((here / ".fetched.json").read_text())["run"] == "far"
    epochs = summary_of(here)["epochs"]

    status, out, err = finish(ask("--resume", "far", "--extend", "+4epochs"))
    assert (status, err) == (0, ""), out
    assert f"of at most {epochs + 4} epochs" in out
    assert "test top-1" in out
    summary = summary_of(here)
    assert summary["state"] == "finished"
    assert summary["epochs"] > epochs
    for name in ("best_model/model.safetensors", "report.html", "leaderboard.csv", "study.log", "config.yaml"):
        assert (here / name).read_bytes() == (there / name).read_bytes(), name
    assert list(here.glob("trials/*/events.*"))
    assert not list(here.glob("trials/*/*.safetensors"))
    assert not list(here.glob("**/checkpoint.pt"))
    assert not list(here.parent.glob(".far*"))

    token = head.token.read_text()
    written = [*folder.rglob("*"), *there.rglob("*")]
    assert not [path for path in written if path.is_file() and token.encode() in path.read_bytes()]


def test_a_search_that_is_killed_is_said_to_be_and_what_it_had_found_is_fetched(head: Head, folder: Path) -> None:
    there = head.home / "vistune" / "results" / "killed"
    environment = head.environment()
    follower = submit("space.yaml", "--name", "killed", folder=folder, environment=environment, address=head.address)
    wait_until(lambda: any(trial.intermediate_values for trial in trials_of(there)))
    subprocess.run(["pkill", "-KILL", "-f", "search[.]run .*--name killed"], check=True)
    status, _, err = finish(follower)
    assert status == 1
    assert "its process was killed (status -9); what had ended is kept: python -m cluster.submit --resume killed" in err
    assert (folder / "results" / "killed" / "study.log").is_file()


@pytest.mark.parametrize("token", ["missing", "wrong"])
def test_without_the_token_one_is_told_how_to_get_it(head: Head, folder: Path, token: str, tmp_path: Path) -> None:
    environment = plain_environment(tmp_path)
    if token == "wrong":
        environment["RAY_AUTH_TOKEN"] = "5ec7e7" * 6
    process = submit("space.yaml", "--name", token, folder=folder, environment=environment, address=head.address)
    status, out, err = finish(process)
    assert (status, out) == (2, "")
    what = "asks for a token, and none was sent" if token == "missing" else "does not accept the token that was sent"
    assert f"the cluster {what}" in err
    for way in ("ray get-auth-token", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN "):
        assert way in err
    assert "5ec7e7" not in err
    assert len(err.splitlines()) == 1


def test_nothing_at_the_address(folder: Path, tmp_path: Path) -> None:
    environment = plain_environment(tmp_path)
    process = submit("space.yaml", folder=folder, environment=environment, address="http://127.0.0.1:9")
    status, _, err = finish(process)
    assert status == 2
    assert "nothing answers there" in err


_CHECK = """
import sys, ray
from pathlib import Path
from search.node_checks import check_nodes
from search.results import RunPaths
from search.halt import Halt
from trainables.config import DataConfig
from trainables.data import load_data
from trainables.errors import VistuneError
ray.init(sys.argv[1], log_to_driver=False)
data = DataConfig(name="digits")
found = load_data(data).fingerprint
for folder, fingerprint in ((sys.argv[2], found), (sys.argv[3], "0" * 16), (sys.argv[3], found)):
    try:
        check_nodes(RunPaths(Path(folder)), data, fingerprint=fingerprint, halt=Halt(), note=lambda _: None)
        print("fine")
    except VistuneError as error:
        print(type(error).__name__, error)
"""


@pytest.mark.skipif(not may_hide(), reason="needs the right to mount, to hide a folder from a node")
def test_a_node_that_does_not_share_is_named(head: Head, tmp_path: Path) -> None:
    hidden, shared = tmp_path / "hidden", tmp_path / "shared"
    hidden.mkdir()
    environment = {**head.environment(), "RAY_AUTH_MODE": "token"}
    with running_node(head, hides=hidden):
        command = [sys.executable, "-c", _CHECK, head.gcs, str(hidden / "run"), str(shared / "run")]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stdout + done.stderr
    assert lines[0].startswith("ConfigError node ")
    assert f"{hidden}/run: does not see it" in lines[0]
    assert "give --storage-path such a folder" in lines[0]
    assert lines[1].startswith("DataError node ")
    assert "the images are not the driver's" in lines[1]
    assert lines[2] == "fine"
    assert not list(shared.rglob(".nodes-*"))
    assert (head.home.parent / "node.cache").is_dir()  # the node has decoded them into its own cache
