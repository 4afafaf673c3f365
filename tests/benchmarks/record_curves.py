"""What do real trainings look like to a search? Trains random trials of a space and keeps their learning curves.

    python -m tests.benchmarks.record_curves --trials 4000

Trains with `trainables.train` in plain Python, one thread a process, and adds to what the file has: interrupted or
called again with more trials, it goes on. Trial i is drawn by seed i. Seconds are CPU seconds, so that other programs
on the machine do not count. The test split is never looked at.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from typing import Any

from search.config import SearchConfig, load_search
from search.curve_table import CurveTable

FOLDER = Path(__file__).parent / "curves"
SAVE_EVERY = 25


@dataclass(frozen=True)
class Recording:
    """What one training reported; `seconds` are CPU seconds of one epoch."""

    params: Mapping[str, Any]
    values: list[float]
    losses: list[float]
    seconds: float


def drawn(config: SearchConfig, number: int) -> dict[str, Any]:
    """The searched parameters of trial number i, the same in every process."""
    space = config.search_space
    params = space.draw(random.Random(number))
    return {name: params[name] for name in space.searched if name in params}


def record(task: tuple[SearchConfig, int]) -> Recording:
    """Trains one trial to its end, or until it diverges."""
    from trainables.errors import DivergedError
    from trainables.runtime import LocalRuntime
    from trainables.train import train

    config, number = task
    params = drawn(config, number)
    ends = [time.process_time()]

    class CpuClock(LocalRuntime):
        def report(self, metrics: Mapping[str, float], *, last: bool) -> None:
            super().report(metrics, last=last)
            ends.append(time.process_time())

    runtime = CpuClock(num_threads=1)
    try:
        train(config.trial_config(params), runtime)
    except DivergedError:
        ends.append(time.process_time())
    # The first epoch has the building of the trial in it.
    epochs = [after - before for before, after in pairwise(ends)]
    return Recording(
        params=params,
        values=[metrics[config.metric] for metrics in runtime.reported],
        losses=[metrics["val_loss"] for metrics in runtime.reported],
        seconds=median(epochs[1:] or epochs),
    )


def record_all(config: SearchConfig, *, table: CurveTable, trials: int, processes: int) -> Iterator[CurveTable]:
    """The table after every few trainings, until it has so many trials."""
    tasks = [(config, number) for number in range(len(table), trials)]
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        recordings = pool.imap(record, tasks)  # in order, so that the length says which come next
        while chunk := list(islice(recordings, SAVE_EVERY)):
            for each in chunk:
                table = table.with_training(each.params, values=each.values, losses=each.losses, seconds=each.seconds)
            yield table


def main() -> None:
    parser = argparse.ArgumentParser(description="Record the learning curves of random trials.")
    parser.add_argument("--space", type=Path, default=FOLDER / "digits.yaml")
    parser.add_argument("--trials", type=int, default=4000, help="trials that the file has in the end")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=FOLDER / "digits.npz")
    arguments = parser.parse_args()
    os.environ |= {"NO_ALBUMENTATIONS_UPDATE": "1", "OMP_NUM_THREADS": "1"}
    config = load_search(arguments.space)
    domains, epochs = config.search_space.domains, config.scheduler.max_epochs
    table = CurveTable.empty(domains, metric=config.metric, epochs=epochs)
    if arguments.out.exists():
        table = CurveTable.read(arguments.out)
    for longer in record_all(config, table=table, trials=arguments.trials, processes=arguments.processes):
        longer.write(arguments.out)
        print(f"{len(longer)} of {arguments.trials} trials, {arguments.out.stat().st_size / 1024:.0f} KiB", flush=True)


if __name__ == "__main__":
    main()
