"""What does a trial of two workers cost beside its training? vistune against a new `TorchTrainer` for each trial.

The baseline is the pattern of Ray's documentation: a Tune function that runs a `TorchTrainer`, whose reports a
`TuneReportCallback` forwards. Both run the same trials, one at a time: a small CNN, two epochs on a few 8 x 8 images.
The baseline has nothing else; vistune has TensorBoard files, checkpoints, best weights, the study and the live view.

Time runs from the start of the first trial to the end of the last, so the forming of the first group counts; the start
of Ray does not.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from search.config import load_search
from tests.benchmarks.ratios import ratio
from tests.images import write_classes
from tests.search.cli import run, trials_of, write_space

pytestmark = pytest.mark.benchmark

TRIALS = 6
REPEATS = 5


def vistune(space: Path, folder: Path) -> float:
    status, out, err = run(space, "--name", "run", "--storage-path", folder)
    assert (status, err) == (0, ""), out
    trials = trials_of(folder / "run")
    started = [trial.datetime_start for trial in trials if trial.datetime_start is not None]
    ended = [trial.datetime_complete for trial in trials if trial.datetime_complete is not None]
    assert len(ended) == TRIALS
    return (max(ended) - min(started)).total_seconds() / TRIALS


def nested(space: Path, folder: Path) -> float:
    folder.mkdir()
    process = multiprocessing.get_context("spawn").Process(target=_nested_search, args=(space, folder))
    process.start()
    process.join()
    assert process.exitcode == 0
    spans = [json.loads(path.read_text()) for path in folder.glob("span-*.json")]
    assert len(spans) == TRIALS
    return (max(end for _, end in spans) - min(start for start, _ in spans)) / TRIALS


def _nested_search(space: Path, folder: Path) -> None:
    import ray
    import ray.train
    import ray.tune
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    config = load_search(space)

    def driver(params: dict[str, Any]) -> None:
        started = time.time()
        TorchTrainer(
            _worker,
            train_loop_config=config.trial_config({"lr": params["lr"]}).model_dump(mode="json"),
            scaling_config=ray.train.ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
            run_config=ray.train.RunConfig(storage_path=str(folder), callbacks=[TuneReportCallback()]),
        ).fit()
        name = f"span-{ray.tune.get_context().get_trial_id()}.json"
        (folder / name).write_text(json.dumps([started, time.time()]))

    ray.init(num_cpus=2, include_dashboard=True, log_to_driver=False)
    tuner = ray.tune.Tuner(
        ray.tune.with_resources(driver, ray.tune.PlacementGroupFactory([{"CPU": 0, "memory": 2**20}])),
        param_space={"lr": ray.tune.loguniform(1e-4, 1e-2)},
        tune_config=ray.tune.TuneConfig(num_samples=TRIALS, max_concurrent_trials=1),
        run_config=ray.tune.RunConfig(storage_path=str(folder), verbose=0),
    )
    assert not tuner.fit().errors
    ray.shutdown()


def _worker(config: Mapping[str, Any]) -> None:
    import ray.train

    from trainables.config import TrialConfig
    from trainables.ray_runtime import GroupRuntime
    from trainables.train import train

    class Reporting(GroupRuntime):
        def report(self, metrics: Mapping[str, float], *, last: bool) -> None:
            del last
            ray.train.report(dict(metrics))

    train(
        TrialConfig.model_validate(config),
        Reporting(trial_dir=None, num_threads=1, decide=lambda _: True),  # type: ignore[arg-type]
    )


def test_overhead_of_two_worker_trials(tmp_path: Path) -> None:
    write_classes(tmp_path / "images", {"dark": 40, "bright": 40})
    space = write_space(
        tmp_path,
        task={"data": {"name": "folder", "root": str(tmp_path / "images")}},
        space={"arch": "small_cnn", "lr": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}, "batch_size": 32},
        scheduler={"name": "none", "max_epochs": 2},
        budget={"trials": TRIALS},
        resources={"workers": 2, "max_concurrent_trials": 1},
    )
    found = [
        (vistune(space, tmp_path / f"v{index}"), nested(space, tmp_path / f"n{index}")) for index in range(REPEATS)
    ]
    ours, theirs = ([pair[side] for pair in found] for side in (0, 1))
    print(f"\n{TRIALS} trials of 2 workers, median of {REPEATS} (least to most)")
    for name, values in (("vistune", ours), ("a TorchTrainer each", theirs)):
        print(f"  {name:<20} {median(values):6.2f} s a trial ({min(values):.2f} to {max(values):.2f})")
    each = [one / other for one, other in found]
    print(f"  ratio {ratio('time of a two-worker trial over a TorchTrainer each', each, better='lower')}")
