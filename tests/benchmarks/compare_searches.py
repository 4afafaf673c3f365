"""Which search method finds a good trial soonest? All on the same learning curves, virtual clock and devices.

    python -m tests.benchmarks.compare_searches --lcbench FOLDER --medquicktune FOLDER --seeds 20

Random search without early stopping gets the time of some full trainings, and what it reaches (the median over seeds)
is the target of its task. A method's score is the part of that time after which it has a trial with the target's
value; it is cut off at `CUT_OFF`. Rows are added to the CSV file as they come, and those it has are not run again;
then the tables of `results/search_comparison.md` are printed from it.
"""

from __future__ import annotations

import argparse
import csv
import math
import multiprocessing
import os
import random
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import mean, median

from search.virtual_clock import Trace
from tests.benchmarks.comparison_tables import tables
from tests.benchmarks.curve_sources import Benchmark, digits, lcbench, medquicktune
from tests.benchmarks.peers.methods import METHODS, RANDOM, Conditions, run

OUT = Path(__file__).parents[2] / "results" / "search_comparison.csv"

# Parts of random search's time at which the best value so far is noted, and at which a method is cut off.
NOTED = (0.03, 0.1)
CUT_OFF = 0.3

# Of LCBench every sixth task in the order of their numbers, from the fourth on, so that none is picked for its result:
# those from the first on (3945, 146212, ...) served to design the forest. Of MedQuickTune the two sets with the most
# curves.
BENCHMARKS = (
    "digits",
    *(f"LCBench/{task}" for task in (126025, 167149, 167185, 168331, 189862, 189908)),
    *(f"MedQuickTune/{images}" for images in ("crlm", "desmoid")),
)

_TARGET_SEEDS = 20


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        budget_s: time of random search in virtual seconds.
        target: the value that random search has then, median over seeds.
        part: of that time, until the method had the target; empty where it had not at the cut-off.
        best_3, best_10: best validation value after 3 % and 10 % of the time.
        test_10: test score of the trial and epoch that had the best validation value after 10 %; empty where the
            curves have none.
    """

    family: str
    task: str
    devices: int
    method: str
    seed: int
    budget_s: float
    target: float
    part: float | None
    best_3: float | None
    best_10: float | None
    test_10: float | None


@dataclass(frozen=True)
class Job:
    """What one process is to do: one method and seed on one task."""

    benchmark: str
    folder: str
    devices: int
    method: str
    seed: int
    budget_s: float
    target: float


def benchmark_of(name: str, folder: str) -> Benchmark:
    """A task by its name, `digits`, `LCBench/NUMBER` or `MedQuickTune/SET`."""
    family, _, task = name.partition("/")
    if family == "LCBench":
        return lcbench(Path(folder), task=task)
    return medquicktune(Path(folder), dataset=task) if family == "MedQuickTune" else digits()


def random_search(benchmark: Benchmark, *, devices: int) -> tuple[float, float]:
    """Seconds of its full trainings at so many a time, and the median of what it reaches in them."""
    curves, rng = benchmark.curves(), random.Random("mean training")
    mean_s = mean(float(curves.curve(benchmark.space.draw(rng)).seconds.sum()) for _ in range(200))
    budget_s = mean_s * benchmark.full_trainings / devices
    runs = (run(RANDOM, Conditions(benchmark, seed, devices, budget_s)) for seed in range(1000, 1000 + _TARGET_SEEDS))
    return budget_s, median(trace.best for trace in runs)


def measure(job: Job) -> Row:
    """Runs one method, past the last noted time only if it has not reached the target by then."""
    benchmark = benchmark_of(job.benchmark, job.folder)
    conditions = Conditions(benchmark, job.seed, job.devices, NOTED[-1] * job.budget_s)
    trace = run(job.method, conditions)
    part = trace.time_to(job.target) / job.budget_s
    if part == math.inf:
        longer = Conditions(benchmark, job.seed, job.devices, CUT_OFF * job.budget_s, job.target)
        part = run(job.method, longer).time_to(job.target) / job.budget_s
    early, late = (_best_at(trace, share * job.budget_s) for share in NOTED)
    return Row(
        family=benchmark.family,
        task=benchmark.name,
        devices=job.devices,
        method=job.method,
        seed=job.seed,
        budget_s=round(job.budget_s, 1),
        target=round(job.target, 5),
        part=None if part == math.inf else round(part, 5),
        best_3=early,
        best_10=late,
        test_10=_test_at(trace, NOTED[-1] * job.budget_s),
    )


def _best_at(trace: Trace, time_s: float) -> float | None:
    incumbent = trace.incumbent_at(time_s)
    return None if incumbent is None else round(incumbent.value, 5)


def _test_at(trace: Trace, time_s: float) -> float | None:
    incumbent = trace.incumbent_at(time_s)
    test = None if incumbent is None else getattr(trace.curves[incumbent.key], "test", None)
    return None if incumbent is None or test is None else round(float(test[incumbent.epoch - 1]), 5)


def read(path: Path) -> list[Row]:
    """The rows of the file; none where there is none yet."""
    if not path.exists():
        return []
    kinds = {field.name: str(field.type) for field in fields(Row)}
    with path.open(newline="", encoding="utf-8") as file:
        return [Row(**{name: _parsed(text, kinds[name]) for name, text in row.items()}) for row in csv.DictReader(file)]


def _parsed(text: str, kind: str) -> str | int | float | None:
    if kind == "str":
        return text
    return int(text) if kind == "int" else float(text) if text else None


def append(path: Path, rows: Iterable[Row]) -> Iterator[Row]:
    """Adds rows to the file as they come."""
    path.parent.mkdir(parents=True, exist_ok=True)
    begun = path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        if not begun:
            writer.writeheader()
        for row in rows:
            writer.writerow(asdict(row))
            file.flush()
            yield row


def jobs(arguments: argparse.Namespace, *, known: set[tuple[str, ...]]) -> Iterator[Job]:
    """What is left to run, seed by seed, so that a part of it is a comparison already."""
    folders = {"LCBench": arguments.lcbench, "MedQuickTune": arguments.medquicktune}
    baselines: dict[tuple[str, int], tuple[str, float, float]] = {}
    for devices in arguments.devices:
        for name in arguments.benchmarks:
            folder = str(folders.get(name.partition("/")[0], ""))
            baselines[name, devices] = (folder, *random_search(benchmark_of(name, folder), devices=devices))
    for seed in range(arguments.seeds):
        for (name, devices), (folder, budget_s, target) in baselines.items():
            for method in arguments.methods:
                if (name.rpartition("/")[2], str(devices), method, str(seed)) not in known:
                    yield Job(name, folder, devices, method, seed, budget_s, target)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare search methods on the same learning curves.")
    parser.add_argument("--lcbench", type=Path, help="folder with model.onnx of the LCBench surrogate")
    parser.add_argument("--medquicktune", type=Path, help="folder with curve.csv of the MedQuickTune curves")
    parser.add_argument(
        "--benchmarks", nargs="*", default=list(BENCHMARKS), metavar="NAME", help="such as LCBench/3945"
    )
    others = [name for name in METHODS if name != RANDOM]
    parser.add_argument("--methods", nargs="*", default=others, choices=others, metavar="METHOD")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--devices", type=int, nargs="*", default=[4])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the libraries of the processes that are started below
    known = {(row.task, str(row.devices), row.method, str(row.seed)) for row in read(arguments.out)}
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for row in append(arguments.out, pool.imap(measure, jobs(arguments, known=known))):
            print(row.task, row.devices, row.method, row.seed, row.part, flush=True)
    print(tables(read(arguments.out), cut_off=CUT_OFF))


if __name__ == "__main__":
    main()
