"""Did a search come through? No trial lost or run twice, no epoch trained in vain, every score as without the fault."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from safetensors import SafetensorError
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from search.results import RunPaths
from tests.faults.case import Case
from tests.faults.cluster import Cluster
from tests.search.cli import summary_of
from trainables.object_store import fetch

# What belongs to the cluster rather than to a search.
_SERVICES = ("Agent", "IDLE", "_AutoscalingCoordinatorActor", "SPILL", "RESTORE")
_TIDY_WITHIN_S = 60.0
_TOLERANCE = 1e-6

Trials = Mapping[tuple[Any, ...], FrozenTrial]


@dataclass(frozen=True)
class Verdict:
    """What is wrong at the end of a case, in words; nothing where it was survived.

    Attributes:
        again: epochs that were trained a second time.
        restarts: of trials, after lost workers and after preemptions.
    """

    problems: list[str]
    again: int
    restarts: tuple[int, int]


def judge(case: Case, reference: Trials) -> Verdict:
    """Looks at everything that a search has left on the disk and on the cluster."""
    search, expected = case.search, case.expected
    fetch(search.paths.root)
    session, finished = search.session(), search.finished()
    problems = list(case.notes)
    if session.status != "SUCCEEDED":
        last = search.output(session).strip().splitlines()[-5:]
        problems.append(f"the search ended {session.status}: {' | '.join(last)}")
    problems += _of_kept(case.finished_before, finished)
    problems += _of_scores(finished, reference, failed=expected.failed, search_trials=search.trials())
    again = sum(trained_again(search.paths, trial.number) for trial in search.trials())
    if again > expected.again:
        problems.append(f"{again} epochs were trained again")
    restarts = (0, 0)
    if not search.paths.summary.is_file():
        problems.append("there is no summary.json")
    else:
        problems += _of_best_model(search.paths, finished)
        told = search.summary()["restarts"]
        restarts = told["after_a_lost_worker"], told["after_a_preemption"]
        problems += _of_restarts(restarts, lost=expected.lost, preempted=expected.preempted)
    problems += _left_behind(case.cluster, search.paths)
    return Verdict(problems, again, restarts)


def _of_kept(before: Mapping[Any, Any], after: Trials) -> Iterator[str]:
    for params, known in before.items():
        trial = after.get(params)
        if trial is None or (trial.state, trial.intermediate_values, trial.value) != known:
            yield f"a finished trial was lost or changed: {dict(params)}"


def _of_scores(
    finished: Trials, reference: Trials, *, failed: Mapping[int, str], search_trials: list[FrozenTrial]
) -> Iterator[str]:
    running = [trial.number for trial in search_trials if trial.state is TrialState.RUNNING]
    if running:
        yield f"trials {running} have not ended"
    run = [trial for trial in search_trials if "not_run" not in trial.user_attrs]
    counted = Counter(tuple(sorted(trial.params.items())) for trial in run)
    for params in reference.keys() - counted.keys():
        yield f"a trial was lost: {dict(params)}"
    for params in (params for params, count in counted.items() if count > 1):
        yield f"a trial was run {counted[params]} times: {dict(params)}"
    for trial in finished.values():
        if trial.number in failed:
            cause = trial.user_attrs["outcome"]["cause"]
            if cause != failed[trial.number]:
                yield f"trial {trial.number} failed of {cause!r}, expected {failed[trial.number]!r}"
            continue
        undisturbed = reference.get(tuple(sorted(trial.params.items())))
        if undisturbed is None:
            yield f"trial {trial.number} has parameters of its own: {trial.params}"
        elif trial.state is not TrialState.COMPLETE:
            outcome = trial.user_attrs.get("outcome", {})
            yield f"trial {trial.number} ended {trial.state.name}: {outcome.get('cause')}: {outcome.get('message')}"
        elif not _same_curve(trial, undisturbed):
            yield f"trial {trial.number} reached {trial.value}, {undisturbed.value} without the fault"


def _same_curve(one: FrozenTrial, other: FrozenTrial) -> bool:
    if one.intermediate_values.keys() != other.intermediate_values.keys():
        return False
    return all(
        abs(value - other.intermediate_values[epoch]) <= _TOLERANCE for epoch, value in one.intermediate_values.items()
    )


def _of_best_model(paths: RunPaths, finished: Trials) -> Iterator[str]:
    """The winner is the best of the trials, its weights can be read, and it was tested."""
    summary = summary_of(paths.root)
    values = [trial.value for trial in finished.values() if trial.state is TrialState.COMPLETE and trial.value]
    best = (summary["best"] or {}).get("val_top1")
    if best is None or abs(best - max(values, default=0.0)) > _TOLERANCE:
        yield f"the winner has {best}, the best trial {max(values, default=None)}"
    if not 0 <= (summary["test"] or {}).get("top1", -1) <= 1:
        yield "the winner was not tested"
    try:
        weights = load_file(paths.best_model / "model.safetensors")
    except (OSError, SafetensorError) as error:
        yield f"the best model cannot be read: {error}"
        return
    if not weights or not all(bool(each.isfinite().all()) for each in weights.values() if each.is_floating_point()):
        yield "the best model has no weights, or such as are not finite"


def _of_restarts(found: tuple[int, int], *, lost: int, preempted: int) -> Iterator[str]:
    if found[0] < lost or (preempted and not lost and found[0]):
        yield f"{found[0]} restarts after a lost worker, expected {lost or 'none'}"
    if found[1] < preempted:
        yield f"{found[1]} restarts after a preemption, expected {preempted}"


def trained_again(paths: RunPaths, number: int) -> int:
    """Epochs of a trial that its TensorBoard files hold more than once."""
    logged = Counter(
        event.step
        for path in sorted(paths.trial(number).glob("events.*"))
        for event in EventFileLoader(str(path)).Load()
        if any(value.tag == "loss/train" for value in event.summary.value)
    )
    return sum(count - 1 for count in logged.values())


def hosts_of(paths: RunPaths) -> set[str]:
    """Names of the hosts on which trials were trained."""
    return {path.name.split(".")[4] for path in paths.trials.glob("[0-9]*/events.*")}


def _left_behind(cluster: Cluster, paths: RunPaths) -> Iterator[str]:
    """Processes and placement groups, for which it waits a while, and files that nobody needs any more."""
    until = time.monotonic() + _TIDY_WITHIN_S
    while (left := [*_processes(cluster), *_groups(cluster)]) and time.monotonic() < until:
        time.sleep(1)
    yield from left
    yield from (f"left behind: {path.relative_to(paths.root)}" for path in _litter(paths.root))


def _processes(cluster: Cluster) -> Iterator[str]:
    for host in cluster.hosts.values():
        for title in host.titles().values():
            ours = title.startswith("ray::") and not any(service in title for service in _SERVICES)
            if ours or "search.run" in title:
                yield f"a process is left on {host.name}: {title.strip()[:80]}"


def _groups(cluster: Cluster) -> Iterator[str]:
    for group in cluster.listed("placement_groups"):
        if group["state"] != "REMOVED":
            yield f"a placement group is left: {group['state']}, of job {group['creator_job_id']}"


def _litter(root: Path) -> Iterator[Path]:
    for path in root.rglob("*"):
        name = path.name
        unneeded = (
            name.startswith((".", "checkpoint.", "driver.json"))
            or name.endswith(".lock")
            or path == RunPaths(root).tune
        )
        if unneeded and path != RunPaths(root).lock:
            yield path
