"""Simulated searches decide what real ones decide."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.algorithm_config import SamplerConfig, SchedulerConfig
from search.budget_config import BudgetConfig
from search.config import ResourcesConfig
from search.curve_table import CurveTable
from search.domains import parse_domain
from search.ledger import Ledger
from search.scheduler_choice import build_scheduler
from search.searcher import Halt, OptunaSearcher
from search.simulated_curves import Curve, RecordedCurves
from search.simulation import SimulatedSearch, simulate
from search.space import Space
from search.spending import Spending
from search.study import StudyStore
from search.virtual_clock import report_of
from trainables.errors import ConfigError

EPOCHS = 9
DOMAINS = {
    "lr": parse_domain({"type": "float", "low": 1e-4, "high": 0.1, "log": True})[0],
    "optimizer": parse_domain({"type": "categorical", "values": ["adamw", "sgd"]})[0],
}
SPACE = Space({name: domain for name, domain in DOMAINS.items() if domain is not None})


class Bowl:
    """Curves whose height depends on the distance of lr from 1e-2; an epoch takes a second."""

    def curve(self, params: Mapping[str, Any]) -> Curve:
        height = 1 - 0.2 * abs(math.log10(params["lr"]) + 2) - (0.1 if params["optimizer"] == "sgd" else 0.0)
        values = height * (1 - 0.6 ** np.arange(1, EPOCHS + 1))
        return Curve(values, 1 - values, np.ones(EPOCHS))


def search(scheduler: str, *, trials: int = 20, seed: int = 0) -> SimulatedSearch:
    return SimulatedSearch(
        space=SPACE,
        sampler=SamplerConfig(seed=seed, startup_trials=5),
        scheduler=SchedulerConfig(name=scheduler, max_epochs=EPOCHS),  # type: ignore[arg-type]
        budget=BudgetConfig(trials=trials),
    )


def decided(store: StudyStore) -> list[tuple[Any, ...]]:
    return [(trial.state.name, dict(trial.params), dict(trial.intermediate_values)) for trial in store.trials()]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["asha", "asha_promotion"])
def test_tune_decides_the_same(scheduler: str, tmp_path: Path) -> None:
    asked = search(scheduler)
    simulated = simulate(asked, Bowl(), devices=1)
    assert decided(simulated.machinery.store) == decided(through_tune(asked, tmp_path))


def through_tune(asked: SimulatedSearch, folder: Path) -> StudyStore:
    """The same search through Ray Tune, whose trials report the same curves."""
    import ray
    import ray.tune

    store = StudyStore(folder / "study.log", name="real", metric="val_top1", sampler=asked.sampler, space=SPACE)
    scheduler = build_scheduler(asked.scheduler, metric="val_top1", space=SPACE, seed=asked.sampler.seed)
    searcher = OptunaSearcher(
        store,
        SPACE,
        Ledger(metric="val_top1"),
        scheduler=scheduler,
        halt=Halt(),
        spending=Spending(asked.budget, ResourcesConfig()),
        on_finish=lambda _: None,
        max_trials=asked.budget.trials,
        max_concurrent=1,
        seed=asked.sampler.seed,
    )
    bowl = Bowl()

    def trial(config: dict[str, Any]) -> None:
        curve = bowl.curve(config["params"])
        for epoch in range(1, EPOCHS + 1):
            said = report_of(curve, epoch)
            ray.tune.report(
                {
                    "epoch": epoch,
                    "val_top1": said.value,
                    "val_loss": said.loss,
                    "score": said.score,
                    "best_epoch": said.best_epoch,
                    "train_s": said.seconds,
                    "val_s": 0.0,
                    "images_per_s": 1.0,
                    "done": said.last,
                }
            )

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        ray.tune.Tuner(
            trial,
            tune_config=ray.tune.TuneConfig(
                search_alg=searcher, scheduler=scheduler, num_samples=-1, reuse_actors=True
            ),
            run_config=ray.tune.RunConfig(name="tune", storage_path=str(folder), verbose=0),
        ).fit()
    finally:
        ray.shutdown()
    searcher.end_running_trials()
    return store


def test_the_same_seed_gives_the_same_search() -> None:
    one, same, other = (simulate(search("asha", seed=seed), Bowl(), devices=4) for seed in (0, 0, 1))
    assert one.trace.events == same.trace.events
    assert decided(one.machinery.store) == decided(same.machinery.store)
    assert one.trace.events != other.trace.events


@pytest.mark.parametrize(("devices", "seconds"), [(1, 20 * EPOCHS), (4, 5 * EPOCHS), (8, 3 * EPOCHS)])
def test_the_clock_counts_what_devices_train(devices: int, seconds: float) -> None:
    trace = simulate(search("none"), Bowl(), devices=devices).trace
    assert len(trace.events) == 20 * EPOCHS
    assert trace.events[-1].time_s == seconds
    assert trace.time_to(trace.best) <= seconds
    assert trace.time_to(2.0) == math.inf


def test_early_stopping_saves_time_and_finds_as_much() -> None:
    full, stopped = (simulate(search(name, trials=60), Bowl(), devices=2).trace for name in ("none", "asha"))
    assert len(stopped.events) < len(full.events) / 2
    assert stopped.time_to(0.9 * full.best) < full.time_to(0.9 * full.best) + EPOCHS


def test_time_cuts_a_search_off() -> None:
    found = simulate(search("none"), Bowl(), devices=1, until_s=2.5 * EPOCHS)
    assert found.trace.events[-1].time_s == 22
    assert [state for state, _, _ in decided(found.machinery.store)] == ["COMPLETE", "COMPLETE", "PRUNED"]


def test_each_recorded_curve_is_given_once(tmp_path: Path) -> None:
    domains = {name: domain for name, domain in DOMAINS.items() if domain is not None}
    table = CurveTable.empty(domains, metric="val_top1", epochs=2)
    for lr, optimizer, value in ((1e-3, "adamw", 0.5), (1e-2, "adamw", 0.6), (1e-2, "sgd", 0.7)):
        params = {"lr": lr, "optimizer": optimizer}
        table = table.with_training(params, values=[0.1, value], losses=[1.0, 0.5], seconds=2.0)
    table.write(tmp_path / "curves.npz")
    curves = RecordedCurves(CurveTable.read(tmp_path / "curves.npz"))
    near = {"lr": 9e-3, "optimizer": "adamw"}
    taken = [curves.curve(near).values[-1] for _ in range(3)]
    assert taken == pytest.approx([0.6, 0.5, 0.6])  # used up, they are used again
    assert curves.curve({"lr": 1e-4, "optimizer": "sgd"}).values[-1] == pytest.approx(0.7)


def test_what_cannot_be_simulated_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"scheduler.name: .* found pbt"):
        simulate(search("pbt"), Bowl(), devices=2)
