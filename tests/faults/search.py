"""One search on the cluster: sent through the job API, watched through its folder, judged by what it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from cluster.jobs import Cluster as Jobs
from search.results import RunPaths
from search.trial_attrs import OUTCOME
from tests.cluster.head import ROOT
from tests.faults.cluster import Cluster
from tests.object_server import BUCKET
from tests.search.cli import summary_of, trials_of
from trainables.mirrors import local_path
from trainables.object_store import fetch, fetch_file

SPACES = {name: f"tests/faults/{name}.yaml" for name in ("solo", "mixed", "long", "long-mixed")}
STORE = f"s3://{BUCKET}/runs"


@dataclass(frozen=True)
class Session:
    """One job of a search."""

    job: str
    status: str
    ended: bool


class Search:
    """A run on the cluster.

    Args:
        space: one of `SPACES`.
        stored: whether the run lies in the object store, rather than on the disk that all share.
    """

    def __init__(self, cluster: Cluster, name: str, *, space: str, stored: bool = False) -> None:
        self._cluster = cluster
        self._space = SPACES[space]
        self._job: str | None = None
        self.name = name
        self._storage = STORE if stored else str(cluster.results)
        self.paths = RunPaths(local_path(self._storage) / name)

    def submit(self, *overrides: str) -> None:
        """Sends the search, as a person does."""
        data = ("task.data.name=folder", f"task.data.root={self._cluster.data}")
        options = [each for override in (*data, *overrides) for each in ("-o", override)]
        self._send(self._space, "--name", self.name, *options)

    def resume(self) -> None:
        self._send("--resume", self.name)

    def trials(self) -> list[FrozenTrial]:
        try:
            fetch_file(self.paths.study)
            return trials_of(self.paths.root)
        except (OSError, KeyError, ValueError):
            return []  # the disk is away, or a line is half written

    def epochs(self) -> dict[int, int]:
        """Epochs reported, by trial in training."""
        return {
            trial.number: max(trial.intermediate_values, default=0)
            for trial in self.trials()
            if trial.state is TrialState.RUNNING
        }

    def host_of(self, number: int) -> str | None:
        """Name of the host on which a trial was begun last; the first worker's, where it has several."""
        folder = self.paths.trial(number)
        fetch(folder, wanted=lambda name: name.startswith("events."))
        files = sorted(folder.glob("events.*"), key=lambda path: path.name.split(".")[3])
        return files[-1].name.split(".")[4] if files else None

    def finished(self) -> dict[tuple[Any, ...], FrozenTrial]:
        """Trials that have ended, by their parameters."""
        return {
            tuple(sorted(trial.params.items())): trial
            for trial in self.trials()
            if trial.state.is_finished() and "not_run" not in trial.user_attrs
        }

    def failures(self) -> dict[int, str]:
        """Causes of the trials that have failed, by number."""
        failed = [trial for trial in self.trials() if trial.user_attrs.get(OUTCOME, {}).get("status") == "failed"]
        return {trial.number: str(trial.user_attrs[OUTCOME]["cause"]) for trial in failed}

    def summary(self) -> dict[str, Any]:
        return dict(summary_of(self.paths.root))

    def session(self) -> Session:
        """The latest one, unless another is followed, as far as it has come."""
        job = Jobs(self._cluster.address).job(self._job or self.name)
        return Session(job.id, job.status, job.ended)

    def follow(self, session: Session) -> None:
        """From now on looks at this session, until another is begun."""
        self._job = session.job

    def output(self, session: Session) -> str:
        """What a session that has ended has said."""
        return "\n".join(Jobs(self._cluster.address).follow(session.job))

    def _send(self, *arguments: str) -> None:
        self._job = None
        where = ["--storage-path", self._storage, "--address", self._cluster.address]
        command = [sys.executable, "-m", "cluster.submit", *arguments, *where, "--detach", "--no-fetch"]
        environment = self._cluster.environment()
        sent = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert sent.returncode == 0, sent.stdout + sent.stderr


def use(cluster: Cluster) -> None:
    """Lets this process be a client of the cluster, and of its object store."""
    told = cluster.environment()
    os.environ |= {name: told[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_USAGE_STATS_ENABLED")}
    os.environ |= {**cluster.store, "VISTUNE_MIRRORS": str(cluster.folder / "client")}
