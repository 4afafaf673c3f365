"""How far does one driver reach? Ten thousand trials through the real Tune loop, and two thousand at a time.

    python -m tests.benchmarks.scale                         # everything, about half an hour
    python -m tests.benchmarks.scale trials --sampler random # the first part, with one sampler
    python -m tests.benchmarks.scale cluster                 # the second part
    python -m tests.benchmarks.scale trials --profile out.pstats

Trials train nothing (`tests.benchmarks.hosted_trials`). Searcher, scheduler, study on disk, watchdog, budgets, live
view and Tune's own loop are those of a search. Times are CPU seconds of the thread that did the work, apart from waits
for the disk, which are said; so they are little changed by what else the machine does.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import optuna
import ray
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from rich.console import Console

from search.config import SearchConfig, load_search
from search.halt import Halt
from search.ledger import Ledger, Status
from search.live import LiveView
from search.proposals import Proposals
from search.results import RunPaths
from search.schedulers import FullScheduler
from search.study import StudyStore
from search.tuner import _RAY_ENVIRONMENT, run_trials
from tests.benchmarks.hosted_trials import hosted
from tests.benchmarks.stopwatch import Stopwatch, memory_mib
from trainables.data import load_data

SPACE = Path(__file__).parents[2] / "spaces" / "small_dataset.yaml"
MARKS = (1_000, 2_000, 5_000, 10_000)

# What is timed: of which class which method, and under which name.
TIMED = {
    "proposal": (Proposals, "next"),
    "decision": (FullScheduler, "on_trial_result"),
    "epoch to study": (StudyStore, "add_epoch"),
    "end to study": (StudyStore, "finish"),
    "live view": (LiveView, "progress"),
    "step of the loop": (TuneController, "step"),
}

LOOP_ONLY = {"step of the loop": TIMED["step of the loop"]}


@dataclass(frozen=True)
class Mark:
    """What had been spent when so many trials had ended.

    Attributes:
        calls, cpu_s, wall_s: by name of `TIMED`.
        driver_s: CPU seconds of the whole driver process, Ray's threads included.
        epochs: reported so far.
    """

    trials: int
    at_s: float
    driver_s: float
    epochs: int
    rss_mib: float
    pss_mib: float
    calls: dict[str, int]
    cpu_s: dict[str, float]
    wall_s: dict[str, float]


class Marks:
    """Notes a `Mark` whenever as many trials have ended as `at` says."""

    def __init__(self, watch: Stopwatch, *, at: Sequence[int]) -> None:
        self._watch = watch
        self._at = list(at)
        self._ended = 0
        self._epochs = 0
        self._began = time.perf_counter()
        self._cpu = time.process_time()
        self.found: list[Mark] = [self._mark()]

    def ended(self) -> None:
        self._ended += 1
        if self._at and self._ended == self._at[0]:
            self._at.pop(0)
            self.found.append(self._mark())
            print(f"  {self._ended} trials after {self.found[-1].at_s:.0f} s", file=sys.stderr, flush=True)

    def reported(self) -> None:
        self._epochs += 1

    def _mark(self) -> Mark:
        rss, pss = memory_mib()
        return Mark(
            self._ended,
            time.perf_counter() - self._began,
            time.process_time() - self._cpu,
            self._epochs,
            rss,
            pss,
            dict(self._watch.calls),
            dict(self._watch.cpu_s),
            dict(self._watch.wall_s),
        )


def search_of(sampler: str, *, trials: int, max_epochs: int) -> SearchConfig:
    overrides = [
        f"budget.trials={trials}",
        f"sampler.name={sampler}",
        f"scheduler.max_epochs={max_epochs}",
        "scheduler.reduction_factor=3",
    ]
    return load_search(SPACE, overrides=overrides)


def run_search(config: SearchConfig, folder: Path, ledger: Ledger, *, halt: Halt | None = None) -> None:
    """The search itself, in a Ray that runs."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with (folder / "view.log").open("w") as log:
        view = LiveView(Console(file=log), config, ledger, title="scale", form="events")
        with view:
            run_trials(
                config,
                RunPaths(folder / "run"),
                data=load_data(config.task.data),
                ledger=ledger,
                halt=halt or Halt(),
                note=view.note,
            )


@contextmanager
def ray_of(cpus: int) -> Iterator[None]:
    """A Ray on this machine that believes in so many CPUs."""
    os.environ.update(_RAY_ENVIRONMENT)
    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=256 * 2**20,
    )
    try:
        yield
    finally:
        ray.shutdown()


def many_trials(sampler: str, *, trials: int, devices: int, profile: Path | None) -> list[Mark]:
    folder = Path(tempfile.mkdtemp(prefix="vistune-scale-"))
    config = search_of(sampler, trials=trials, max_epochs=9)
    watch = Stopwatch()
    try:
        with ray_of(devices), hosted(hosts=1, epochs=9, every_s=0.0), watch.on(TIMED):
            marks = Marks(watch, at=[mark for mark in MARKS if mark < trials] + [trials])
            watch.after("end to study", marks.ended)
            watch.after("decision", marks.reported)
            profiler = cProfile.Profile()
            if profile:
                profiler.enable()
            began = time.process_time()
            run_search(config, folder, Ledger(metric=config.metric))
            if profile:
                profiler.disable()
                profiler.dump_stats(profile)
            print(f"  whole search: {time.process_time() - began:.1f} s of the driver's CPU", file=sys.stderr)
        began = time.perf_counter()
        store = StudyStore(
            folder / "run" / "study.log",
            name="run",
            metric=config.metric,
            sampler=config.sampler,
            space=config.search_space,
        )
        records = store.records()
        print(f"  read again: {len(records)} records in {time.perf_counter() - began:.1f} s", file=sys.stderr)
        assert len(records) == trials
        return marks.found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Kept:
    """Whether a driver kept up with a cluster.

    Attributes:
        running: trials at the end.
        delays_s: from the moment at which a trial reported to the decision, in order.
        busy: part of the time in which the driver's loop computed.
        driver_cores: CPU seconds of the driver's process per second, Ray's threads included.
    """

    running: int
    reports_per_s: float
    delays_s: list[float]
    busy: float
    driver_cores: float
    rss_mib: float

    def __str__(self) -> str:
        middle, late = (self.delays_s[int(part * (len(self.delays_s) - 1))] for part in (0.5, 0.99))
        return (
            f"{self.running:,} trials run, {self.reports_per_s:.1f} reports per second; "
            f"decided after {1e3 * middle:.0f} ms (median), {1e3 * late:.0f} ms (99 %), "
            f"{1e3 * self.delays_s[-1]:.0f} ms at most; the loop computes {self.busy:.0%} of the time, "
            f"the driver {self.driver_cores:.2f} cores; RSS {self.rss_mib:.0f} MiB"
        )


def large_cluster(sampler: str, *, at_a_time: int, every_s: float, warm_up_s: float, for_s: float) -> Kept:
    """Trials that report at fixed times, as many at a time as a cluster of 500 nodes of four devices holds."""
    folder = Path(tempfile.mkdtemp(prefix="vistune-scale-"))
    config = search_of(sampler, trials=10**6, max_epochs=27)
    watch, halt, ledger = Stopwatch(), Halt(), Ledger(metric=config.metric)
    delays: list[float] = []
    found: list[Kept] = []

    def measure() -> None:
        time.sleep(warm_up_s)
        delays.clear()
        wall, process, loop = time.perf_counter(), time.process_time(), watch.cpu_s["step of the loop"]
        time.sleep(for_s)
        took = time.perf_counter() - wall
        found.append(
            Kept(
                running=ledger.totals.counts[Status.RUNNING],
                reports_per_s=len(delays) / took,
                delays_s=sorted(delays),
                busy=(watch.cpu_s["step of the loop"] - loop) / took,
                driver_cores=(time.process_time() - process) / took,
                rss_mib=memory_mib()[0],
            )
        )
        halt.because("measured")

    original = FullScheduler.on_trial_result

    def heard(self: FullScheduler, controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        decision = original(self, controller, trial, result)
        delays.append(time.time() - result["reported_at"])
        return decision

    FullScheduler.on_trial_result = heard  # type: ignore[method-assign]
    try:
        with ray_of(at_a_time), hosted(hosts=2, epochs=27, every_s=every_s), watch.on(LOOP_ONLY):
            threading.Thread(target=measure, daemon=True).start()
            run_search(config, folder, ledger, halt=halt)
        return found[0]
    finally:
        FullScheduler.on_trial_result = original  # type: ignore[method-assign]
        shutil.rmtree(folder, ignore_errors=True)


def table_of(marks: Sequence[Mark]) -> str:
    """The figures as Markdown: each column is about the trials since the one before."""
    spans = list(pairwise(marks))
    rows = [
        ("trials per second (wall)", [(b.trials - a.trials) / (b.at_s - a.at_s) for a, b in spans], ".0f"),
        ("decisions per second (wall)", [(b.epochs - a.epochs) / (b.at_s - a.at_s) for a, b in spans], ".0f"),
        (
            "driver's CPU per trial, ms",
            [1e3 * (b.driver_s - a.driver_s) / (b.trials - a.trials) for a, b in spans],
            ".2f",
        ),
    ]
    for name in TIMED:
        each = [
            [
                1e3
                * (getattr(b, kind)[name] - getattr(a, kind).get(name, 0.0))
                / max(1, b.calls[name] - a.calls.get(name, 0))
                for a, b in spans
            ]
            for kind in ("cpu_s", "wall_s")
        ]
        rows += [(f"{name}: CPU ms a call", each[0], ".3f"), (f"{name}: wall ms a call", each[1], ".3f")]
    rows += [("RSS, MiB", [b.rss_mib for _, b in spans], ".0f"), ("PSS, MiB", [b.pss_mib for _, b in spans], ".0f")]
    lines = ["| up to trial | " + " | ".join(f"{b.trials:,}" for _, b in spans) + " |"]
    lines.append("|---|" + "---:|" * len(spans))
    lines += [
        f"| {name} | " + " | ".join(format(value, form) for value in values) + " |" for name, values, form in rows
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure how far one driver reaches.")
    parser.add_argument("part", nargs="?", choices=("trials", "cluster", "all"), default="all")
    parser.add_argument("--sampler", action="append", help="curve_gp and random by default")
    parser.add_argument("--trials", type=int, default=MARKS[-1])
    parser.add_argument("--devices", type=int, default=16, help="trials at a time in the first part")
    parser.add_argument("--at-a-time", type=int, default=2000, help="trials at a time in the second part")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two reports of a trial there")
    parser.add_argument("--warm-up", type=float, default=180.0, help="seconds for the trials to start there")
    parser.add_argument("--seconds", type=float, default=120.0, help="to measure for")
    parser.add_argument("--profile", type=Path, help="file for the profile of the first part")
    given = parser.parse_args(arguments)
    if given.part in ("trials", "all"):
        for sampler in given.sampler or ["random", "curve_gp"]:
            marks = many_trials(sampler, trials=given.trials, devices=given.devices, profile=given.profile)
            print(f"\n### {given.trials:,} trials, sampler {sampler}, {given.devices} at a time\n\n{table_of(marks)}\n")
    if given.part in ("cluster", "all"):
        for sampler in given.sampler or ["random", "curve_gp"]:
            kept = large_cluster(
                sampler,
                at_a_time=given.at_a_time,
                every_s=given.every,
                warm_up_s=given.warm_up,
                for_s=given.seconds,
            )
            print(
                f"\n### {given.at_a_time:,} at a time, a report each {given.every:g} s, sampler {sampler}\n\n{kept}\n"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
