"""Ray Tune's own OptunaSearch with its own ASHA, driven by the loop that drives ours."""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.search.optuna import OptunaSearch

from search.simulation import TuneLoop
from search.space import Space
from search.virtual_clock import Job


def ray_optuna(space: Space, *, max_epochs: int, devices: int, seed: int) -> TuneLoop:
    """TPE as OptunaSearch sets it up, over the conditional space as a define-by-run function; ASHA with our rungs."""

    def define(trial: Any) -> dict[str, Any]:
        space.suggest(trial)
        return space.fixed

    scheduler = AsyncHyperBandScheduler(
        time_attr="training_iteration",
        metric="val_top1",
        mode="max",
        max_t=max_epochs,
        grace_period=1,
        reduction_factor=3,
    )
    return TuneLoop(
        OptunaSearch(define, metric="val_top1", mode="max", seed=seed),
        scheduler,
        devices=devices,
        metric="val_top1",
        job_of=lambda trial_id, config: Job(trial_id, config),
    )
