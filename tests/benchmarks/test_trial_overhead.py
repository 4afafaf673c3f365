"""What does a trial cost beside its training? vistune against a plain Optuna loop with one process per core.

Both run the same number of the same trials: a small CNN, one epoch on a few 8 x 8 images, proposed by the same sampler
over the same space, kept in the same kind of journal. vistune has everything on that a user gets: Ray Tune, TensorBoard
files, checkpoints, best weights, live view. The baseline has nothing but Optuna and the training function.

Start-up is left out on both sides: time runs from the end of the first tenth of the trials to the end of the last.

    make benchmark
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from statistics import median

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from search.config import SearchConfig, load_search
from search.samplers import build_sampler
from search.space import Space
from tests.images import write_classes
from tests.search.cli import run, trials_of, write_space

pytestmark = pytest.mark.benchmark

TRIALS = 200
REPEATS = 3


def seconds_per_trial(trials: list[optuna.trial.FrozenTrial]) -> float:
    ends = sorted(trial.datetime_complete for trial in trials if trial.datetime_complete is not None)
    assert len(ends) == TRIALS
    skipped = TRIALS // 10
    return (ends[-1] - ends[skipped - 1]).total_seconds() / (TRIALS - skipped)


def vistune(space: Path, folder: Path) -> float:
    status, out, err = run(space, "--name", "run", "--storage-path", folder)
    assert (status, err) == (0, ""), out
    return seconds_per_trial(trials_of(folder / "run"))


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
    return seconds_per_trial(_open(folder, config).get_trials())


def _open(folder: Path, config: SearchConfig, *, worker: int = 0) -> optuna.Study:
    return optuna.create_study(
        study_name="plain",
        storage=JournalStorage(JournalFileBackend(str(folder / "journal.log"))),
        direction="maximize",
        sampler=build_sampler(config.sampler, trials_so_far=worker),
        load_if_exists=True,
    )


def _optimize(space: Path, folder: Path, count: int, worker: int) -> None:
    from trainables.runtime import LocalRuntime
    from trainables.train import train

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    config = load_search(space)

    def objective(trial: optuna.Trial) -> float:
        trial_config = config.trial_config(Space(config.space).suggest(trial))
        return train(trial_config, LocalRuntime(num_threads=1))["score"]

    _open(folder, config, worker=worker).optimize(objective, n_trials=count)


def test_overhead_of_one_worker_trials(tmp_path: Path) -> None:
    write_classes(tmp_path / "images", {"dark": 40, "bright": 40})
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
    sides: dict[str, Callable[[Path, Path], float]] = {"vistune": vistune, "plain Optuna loop": optuna_loop}
    found: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(REPEATS):
        for name, side in sides.items():
            found[name].append(side(space, tmp_path / f"{name[0]}{repeat}"))
    print(f"\n{TRIALS} trials, {os.cpu_count()} cores, median of {REPEATS} (least to most), start-up excluded")
    for name, values in found.items():
        print(
            f"  {name:<18} {1e3 * median(values):7.1f} ms a trial ({1e3 * min(values):.1f} to {1e3 * max(values):.1f})"
        )
    ratios = [ours / plain for ours, plain in zip(*found.values(), strict=True)]
    print(f"  ratio              {median(ratios):7.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
