"""One session of a run, from its folder to its summary: prepare, search, evaluate the winner, write what was found."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import ray
from filelock import FileLock, Timeout
from PIL import Image

from search.cluster_nodes import worker_resources
from search.config import SearchConfig, to_yaml
from search.final import evaluate_winner
from search.final_summary import FinalSummary, summarise
from search.halt import Halt
from search.html_report import write_html_report
from search.knowledge import Knowledge, write_knowledge
from search.ledger import Ledger, TrialRecord
from search.live import LiveView
from search.mirrored_run import fetch_curves, fetch_found
from search.node_checks import check_nodes
from search.preflight import Preflight, describe_run
from search.report_source import ReportSource, read_json, read_source, read_trials, refusals
from search.reproduce import write_reproduction
from search.results import RunPaths, write_bytes, write_json, write_text
from search.retrain import Final, retrain_best
from search.retrain_runner import Interrupted
from search.samples import labelled, sample_grid, sample_trials
from search.signals import signals_kept
from search.summary import write_leaderboard, write_summary
from search.trial_place import recorded_fingerprint, require_same_images
from search.tuner import run_trials, start_ray
from trainables.data import ImageData
from trainables.errors import ConfigError
from trainables.mirrors import shown
from trainables.splits import write_splits
from trainables.trial_log import log_picture

_SAMPLE_IMAGES = 8
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a session ended.

    Attributes:
        state: finished, interrupted or failed.
        reason: why it ended early, where it did.
        is_spent: whether that was its budget.
        test: the winner's test metrics; None unless the search finished.
        final: what the best trials reached when trained again; None where they were not.
        refused: how many proposals exceeded each of the limits.
    """

    state: str
    reason: str | None
    is_spent: bool
    records: list[TrialRecord]
    test: dict[str, Any] | None
    final: FinalSummary | None = None
    refused: Mapping[str, int] = field(default_factory=dict)


@contextmanager
def held(paths: RunPaths) -> Iterator[None]:
    """Keeps every other driver off a run while this one works on it; a killed driver's hold ends with it.

    Raises:
        ConfigError: if another driver holds the run.
    """
    paths.root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(paths.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(
            f"{shown(paths.root)}: another process is running this search; wait for it, or give --name for a run of "
            "its own"
        ) from error
    try:
        yield
    finally:
        lock.release()


def prepare(config: SearchConfig, paths: RunPaths, preflight: Preflight, knowledge: Knowledge | None = None) -> None:
    """Writes what identifies a run, or checks that a resumed run is still about the same images.

    Args:
        knowledge: what a new run takes from earlier ones; a resumed run has it in its folder.

    Raises:
        DataError: if the images have changed since the run began.
        ConfigError: if what a resumed run started from is no longer in its folder.
    """
    if not paths.environment.is_file():
        write_text(paths.config, to_yaml(config))
        if knowledge is not None and knowledge.runs:
            write_knowledge(knowledge, paths)
            _log_lines(paths, (line for run in knowledge.runs for line in run.lines))
        write_splits(paths.splits, preflight.splits, preflight.data)
        _draw_augmentations(config, paths, preflight)
        write_json(paths.environment, describe_run(config, preflight))  # last: it says that all of the above is there
        return
    require_same_images(config.task.data, preflight.data.fingerprint, began_with=recorded_fingerprint(paths))
    if config.earlier_runs and not paths.start_from.is_file():
        raise ConfigError(
            f"{paths.start_from}: is missing, and the run started from what it held; restore it from a copy, or start "
            "a new run"
        )
    environment = read_json(paths.environment) or {}
    environment.setdefault("resumed", []).append(datetime.now(UTC).isoformat(timespec="seconds"))
    write_json(paths.environment, environment)


def _log_lines(paths: RunPaths, lines: Iterable[str]) -> None:
    paths.logs.mkdir(parents=True, exist_ok=True)
    with paths.log.open("a", encoding="utf-8") as log:
        log.writelines(f"{line}\n" for line in lines)


def _draw_augmentations(config: SearchConfig, paths: RunPaths, preflight: Preflight) -> None:
    """A few training images under every augmentation of the space, as a picture and in TensorBoard."""
    rows = preflight.splits.train[:: max(1, len(preflight.splits.train) // _SAMPLE_IMAGES)][:_SAMPLE_IMAGES]
    grid = sample_grid(preflight.data.take(rows), labelled(sample_trials(config), config))
    picture = BytesIO()
    Image.fromarray(grid).save(picture, format="PNG")
    write_bytes(paths.augmentation, picture.getvalue())
    height, width, _ = grid.shape
    log_picture(paths.trials / "augmentation", tag="augmentation", png=picture.getvalue(), height=height, width=width)


def run_session(
    config: SearchConfig,
    paths: RunPaths,
    *,
    data: ImageData,
    ledger: Ledger,
    halt: Halt,
    view: LiveView,
    address: str | None,
) -> Outcome:
    """Searches until the end or an interruption, and leaves the run's folder complete either way."""
    view.note("starting Ray")
    with signals_kept():
        start_ray(address=address)
    try:
        view.note("")
        check_nodes(paths, config.task.data, fingerprint=data.fingerprint, halt=halt, note=view.note)
        elapsed_s = run_trials(config, paths, data=data, ledger=ledger, halt=halt, note=view.note)
        records = ledger.records()
        write_leaderboard(paths.leaderboard, records, config=config)
        state = _state(records, halt)
        test = None
        final = None
        if state == "finished":
            try:
                final = _retrain(config, paths, records, halt=halt, view=view)
                view.note("evaluating the winner on the test split")
                winner = ledger.best() if final is None else final.winner
                assert winner is not None, "a finished search has a scored trial"
                write_reproduction(config, paths, winner)
                test = _evaluate(config, paths, winner, final, halt=halt)
            except Interrupted:
                state = "interrupted"
    finally:
        ray.shutdown()
    found = None
    if final is not None and test is not None and test["retrained"]:
        found = summarise(final, records, test, metric=config.metric)
    refused = refusals(read_trials(paths).trials)
    write_summary(
        paths,
        config,
        records,
        state=state,
        reason=halt.reason,
        elapsed_s=elapsed_s,
        test=test,
        final=found,
        refused=refused,
    )
    fetch_curves(paths)
    view.note("writing the report")
    _write_report(read_source(paths, config=config, records=records), data)
    return Outcome(
        state=state,
        reason=halt.reason,
        is_spent=halt.is_spent,
        records=records,
        test=test,
        final=found,
        refused=refused,
    )


def _write_report(source: ReportSource, data: ImageData) -> None:
    """A page that cannot be drawn is told to the log: the search and all it found are sound without it."""
    try:
        write_html_report(source, data=data)
    except Exception:
        _log.exception("the report could not be written")


def _state(records: list[TrialRecord], halt: Halt) -> str:
    if halt.interrupted:
        return "interrupted"
    usable = any(record.is_usable for record in records)
    return "finished" if usable and not halt.hopeless else "failed"


def _retrain(
    config: SearchConfig, paths: RunPaths, records: list[TrialRecord], *, halt: Halt, view: LiveView
) -> Final | None:
    """The best trials trained again, where that is asked for."""
    if config.final.seeds == 0:
        return None
    final = retrain_best(config, paths, records, halt=halt, note=view.note)
    if final is None:
        _log.error("none of the best trials could be trained again: the search's own weights are evaluated")
    return final


def _evaluate(
    config: SearchConfig, paths: RunPaths, winner: TrialRecord, final: Final | None, *, halt: Halt
) -> dict[str, Any]:
    """Runs where trials ran, so that the driver needs no accelerator of its own.

    Raises:
        Interrupted: when `halt` is.
    """
    resources = config.resources
    trial = config.trial_config(winner.params)
    if final is not None:
        trial = trial.model_copy(update={"seed": final.models[0].seed, "refit_epochs": final.refit_epochs})
    needs = worker_resources(resources)
    asks = {"num_cpus": needs.pop("CPU"), "num_gpus": needs.pop("GPU", 0), "resources": needs}
    task = ray.remote(**asks)(evaluate_winner).remote(
        trial.model_dump(mode="json"),
        number=winner.number,
        run=str(paths.root),
        folders=[] if final is None else [str(each.folder) for each in final.models],
        seeds=[] if final is None else [each.seed for each in final.models],
        device="cuda" if resources.gpus_per_worker > 0 else "cpu",
        num_threads=resources.num_threads,
    )
    while not ray.wait([task], timeout=1.0)[0]:
        if halt.interrupted:
            ray.cancel(task, force=True)
            raise Interrupted
    found: dict[str, Any] = ray.get(task)
    fetch_found(paths)
    return found
