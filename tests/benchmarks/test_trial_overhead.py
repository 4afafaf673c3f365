"""What does a trial cost beside its training? vistune against raw Ray Tune, and a plain Optuna loop a core.

All run the same number of trials over the same space: a small CNN, one epoch on as many 8 x 8 images as take a core
about 50 ms, which is measured as well. vistune has everything on that a user gets: Ray Tune, TensorBoard files,
checkpoints, best weights, live view. Raw Ray Tune has reused actors, random parameters and no logger. The plain loop
has vistune's sampler, Optuna's journal and the training function, in one process per core.

Start-up is left out on all sides: time runs from the end of the first tenth of the trials to the end of the last.

    make benchmark
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from search.config import SearchConfig, load_search
from search.samplers import build_sampler
from tests.benchmarks.ratios import ratio
from tests.images import write_classes
from tests.search.cli import run, trials_of, write_space

pytestmark = pytest.mark.benchmark

TRIALS = int(os.environ.get("VISTUNE_OVERHEAD_TRIALS", "500"))
REPEATS = 5
IMAGES = 200


def seconds_per_trial(ends: Sequence[float]) -> float:
    assert len(ends) == TRIALS
    skipped = TRIALS // 10
    return (ends[-1] - ends[skipped - 1]) / (TRIALS - skipped)


def ends_of(trials: Sequence[optuna.trial.FrozenTrial]) -> list[float]:
    return sorted(trial.datetime_complete.timestamp() for trial in trials if trial.datetime_complete is not None)


def vistune(space: Path, folder: Path) -> float:
    status, out, err = run(space, "--name", "run", "--storage-path", folder)
    assert (status, err) == (0, ""), out
    return seconds_per_trial(ends_of(trials_of(folder / "run")))


def raw_tune(space: Path, folder: Path) -> float:
    command = [sys.executable, "-m", "tests.benchmarks.raw_tune", str(space), str(folder)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return seconds_per_trial(json.loads(out.strip().splitlines()[-1]))


def optuna_loop(space: Path, folder: Path) -> float:
    folder.mkdir()
    config = load_search(space)
    _open(folder, config)
    context = multiprocessing.get_context("spawn")
    cores = os.cpu_count() or 1
    share = [TRIALS // cores + (index < TRIALS % cores) for index in range(cores)]
    processes = [
        context.Process(target=_optimize, args=(space, folder, count, index)) for index, count in enumerate(share)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    return seconds_per_trial(ends_of(_open(folder, config).get_trials()))


def training_alone(space: Path) -> float:
    """CPU seconds of a trial that is nothing but trained, the mean of some random ones."""
    from trainables.runtime import LocalRuntime
    from trainables.train import train

    config = load_search(space)
    trials = [config.trial_config(config.search_space.draw(random.Random(seed))) for seed in range(20)]
    train(trials[0], LocalRuntime(num_threads=1))  # reads the images, and warms torch up
    started = time.process_time()
    for trial in trials:
        train(trial, LocalRuntime(num_threads=1))
    return (time.process_time() - started) / len(trials)


def _open(folder: Path, config: SearchConfig, *, worker: int = 0) -> optuna.Study:
    return optuna.create_study(
        study_name="plain",
        storage=JournalStorage(JournalFileBackend(str(folder / "journal.log"))),
        direction="maximize",
        sampler=build_sampler(config.sampler, trials_so_far=worker, space=config.search_space),
        load_if_exists=True,
    )


def _optimize(space: Path, folder: Path, count: int, worker: int) -> None:
    from trainables.runtime import LocalRuntime
    from trainables.train import train

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    config = load_search(space)

    def objective(trial: optuna.Trial) -> float:
        trial_config = config.trial_config(config.search_space.suggest(trial))
        return train(trial_config, LocalRuntime(num_threads=1))["score"]

    _open(folder, config, worker=worker).optimize(objective, n_trials=count)


def test_overhead_of_one_worker_trials(tmp_path: Path) -> None:
    write_classes(tmp_path / "images", {"dark": IMAGES // 2, "bright": IMAGES // 2})
    space = write_space(
        tmp_path,
        task={"data": {"name": "folder", "root": str(tmp_path / "images")}},
        space={
            "arch": "small_cnn",
            "lr": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
            "weight_decay": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
            "dropout": {"type": "float", "low": 0.0, "high": 0.5},
            "batch_size": {"type": "categorical", "values": [16, 32]},
        },
        scheduler={"name": "none", "max_epochs": 1},
        budget={"trials": TRIALS},
    )
    sides: dict[str, Callable[[Path, Path], float]] = {
        "vistune": vistune,
        "raw Ray Tune": raw_tune,
        "plain Optuna loop": optuna_loop,
    }
    found: dict[str, list[float]] = {name: [] for name in sides}
    alone = [training_alone(space) for _ in range(REPEATS)]
    for repeat in range(REPEATS):
        for name, side in sides.items():
            found[name].append(side(space, tmp_path / f"{name[0]}{repeat}"))
    print(f"\n{TRIALS} trials, {os.cpu_count()} cores, median of {REPEATS} (least to most), start-up excluded")
    print(f"  training alone     {1e3 * median(alone):7.1f} ms of a core")
    for name, values in found.items():
        print(
            f"  {name:<18} {1e3 * median(values):7.1f} ms a trial ({1e3 * min(values):.1f} to {1e3 * max(values):.1f})"
        )
    ours, *others = found
    for other in others:
        rounds = [one / base for one, base in zip(found[ours], found[other], strict=True)]
        print(f"  over {other:<18} {ratio(f'time of a trial over {other}', rounds, better='lower')}")
