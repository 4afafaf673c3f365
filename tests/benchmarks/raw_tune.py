"""Ray Tune with reused actors and nothing else: a process of its own, which prints when each trial ended.

python -m tests.benchmarks.raw_tune SPACE FOLDER
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import optuna

from search.config import SearchConfig, load_search


def main(space: Path, folder: Path) -> None:
    """Trains as many trials as the space's budget says, on random parameters."""
    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}
    import ray
    from ray import tune

    config = load_search(space)
    assert config.budget.trials is not None
    ray.init("local", num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    tuner = tune.Tuner(
        tune.with_resources(_trainable(config), {"CPU": 1}),
        param_space={"params": tune.grid_search(_random(config, config.budget.trials))},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(name="raw", storage_path=str(folder), verbose=0),
    )
    ends = sorted(result.metrics["ended"] for result in tuner.fit())
    print(json.dumps(ends))
    ray.shutdown()


def _random(config: SearchConfig, count: int) -> list[dict[str, Any]]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [config.search_space.suggest(study.ask()) for _ in range(count)]


def _trainable(config: SearchConfig) -> Any:
    def trainable(given: dict[str, Any]) -> None:
        from ray import tune

        from trainables.runtime import LocalRuntime
        from trainables.train import train

        score = train(config.trial_config(given["params"]), LocalRuntime(num_threads=1))["score"]
        tune.report({"score": score, "ended": time.time()})

    return trainable


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
