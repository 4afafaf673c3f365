"""Which search method finds the best classifier in equal time? With real trainings, on digits and on photographs.

    python -m tests.benchmarks.compare_trainings --photographs FOLDER --seeds 5

Every method has the same CPU seconds on each of two simulated devices: a virtual clock that the trainings drive, so
that what else the machine does is no part of the result. Noted are the best validation accuracy after a third of the
time and after all of it, and the test accuracy of the trial that was best. Seed i seeds proposals and trainings. Rows
are added to the CSV file as they come, and those it has are not run again.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from pathlib import Path
from statistics import mean

from search.config import SearchConfig, load_search
from search.final import mean_interval
from tests.benchmarks.curve_sources import Benchmark
from tests.benchmarks.peers.methods import RANDOM, Conditions, run
from tests.benchmarks.trained_curves import TrainedCurves

OUT = Path(__file__).parents[2] / "results" / "training_comparison.csv"
SPACES = Path(__file__).parent / "curves"

DEVICES = 2
# CPU seconds that each device has.
BUDGETS_S = {"digits": 15.0, "photographs": 60.0}

COMPARED = (
    RANDOM,
    "vistune",
    "vistune, random + asha",
    "Ray OptunaSearch + ASHA",
    "Optuna TPE + successive halving",
    "Syne Tune ASHA",
    "Syne Tune ASHA + BORE",
    "Syne Tune ASHA + CQR",
)


@dataclass(frozen=True)
class Row:
    """One search.

    Attributes:
        trials, epochs: begun, and trained in all.
        best_third, best: validation top-1 after a third of the time and after all of it.
        test: test top-1 of the trial that had `best`, with the best weights that it had by then.
    """

    task: str
    method: str
    seed: int
    budget_s: float
    trials: int
    epochs: int
    best_third: float
    best: float
    test: float


@dataclass(frozen=True)
class Job:
    """What one process is to do."""

    task: str
    images: str
    method: str
    seed: int


def search_of(job: Job) -> SearchConfig:
    """The space of a task, its trainings seeded by the job's seed."""
    overrides = [f"sampler.seed={job.seed}", *([f"task.data.root={job.images}"] if job.task == "photographs" else [])]
    return load_search(SPACES / f"{job.task}.yaml", overrides=overrides)


def measure(job: Job) -> Row:
    """Runs one method with one seed, and evaluates what it found on the test split."""
    config, budget_s = search_of(job), BUDGETS_S[job.task]
    with tempfile.TemporaryDirectory() as folder:
        curves = TrainedCurves(config, Path(folder))
        benchmark = Benchmark(
            family="trained",
            name=job.task,
            space=config.search_space,
            max_epochs=config.scheduler.max_epochs,
            curves=lambda: curves,
        )
        trace = run(job.method, Conditions(benchmark, job.seed, DEVICES, budget_s))
        third, last = trace.incumbent_at(budget_s / 3), trace.incumbent_at(budget_s)
        assert third is not None and last is not None, "no epoch ended in time"
        ended = [event.epoch for event in trace.events if event.key == last.key and event.time_s <= budget_s]
        return Row(
            task=job.task,
            method=job.method,
            seed=job.seed,
            budget_s=budget_s,
            trials=len(trace.curves),
            epochs=len(trace.events),
            best_third=round(third.value, 5),
            best=round(last.value, 5),
            test=round(curves.test_score(trace.curves[last.key], epochs=max(ended)), 5),
        )


def read(path: Path) -> list[Row]:
    """The rows of the file; none where there is none yet."""
    if not path.exists():
        return []
    kinds = {field.name: {"str": str, "int": int, "float": float}[str(field.type)] for field in fields(Row)}
    with path.open(newline="", encoding="utf-8") as file:
        return [Row(**{name: kinds[name](text) for name, text in row.items()}) for row in csv.DictReader(file)]


def table(rows: Sequence[Row]) -> str:
    """Means over seeds with 95 % intervals, as Markdown."""
    lines = []
    for task, group in groupby(sorted(rows, key=lambda row: row.task), key=lambda row: row.task):
        of_task = list(group)
        lines += [
            f"### {task}, {of_task[0].budget_s:g} CPU seconds on each of {DEVICES} devices",
            "",
            "| method | seeds | trials | epochs | best validation, a third of the time | best validation | test |",
            "|---|---|---|---|---|---|---|",
        ]
        for method in COMPARED:
            runs = [row for row in of_task if row.method == method]
            if runs:
                lines.append(
                    f"| {method} | {len(runs)} | {mean(row.trials for row in runs):.0f} | "
                    f"{mean(row.epochs for row in runs):.0f} | {_told([row.best_third for row in runs])} | "
                    f"{_told([row.best for row in runs])} | {_told([row.test for row in runs])} |"
                )
        lines.append("")
    return "\n".join(lines)


def _told(values: Sequence[float]) -> str:
    interval = mean_interval(values, most=1.0)
    if interval is None:
        return f"{mean(values):.4f}"
    middle, low, high = interval
    return f"{middle:.4f} ({low:.4f} to {high:.4f})"


def jobs(arguments: argparse.Namespace, *, known: set[tuple[str, str, int]]) -> Iterator[Job]:
    """What is left to run, seed by seed."""
    for seed in range(arguments.seeds):
        for task in arguments.tasks:
            for method in arguments.methods:
                if (task, method, seed) not in known:
                    yield Job(task, str(arguments.photographs), method, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare search methods with real trainings.")
    parser.add_argument("--photographs", type=Path, help="folder with train/CLASS/ and test/CLASS/")
    parser.add_argument("--tasks", nargs="*", default=list(BUDGETS_S), choices=list(BUDGETS_S))
    parser.add_argument("--methods", nargs="*", default=list(COMPARED), choices=COMPARED, metavar="METHOD")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    if "photographs" in arguments.tasks and arguments.photographs is None:
        parser.error("--photographs: needed for the task photographs, found none; give a folder, or --tasks digits")
    os.environ |= {"NO_ALBUMENTATIONS_UPDATE": "1", "OMP_NUM_THREADS": "1"}
    known = {(row.task, row.method, row.seed) for row in read(arguments.out)}
    begun = arguments.out.exists()
    with (
        multiprocessing.get_context("spawn").Pool(arguments.processes) as pool,
        arguments.out.open("a", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        if not begun:
            writer.writeheader()
        for row in pool.imap(measure, jobs(arguments, known=known)):
            writer.writerow(asdict(row))
            file.flush()
            print(row.task, row.method, row.seed, row.best_third, row.best, row.test, flush=True)
    print(table(read(arguments.out)))


if __name__ == "__main__":
    main()
