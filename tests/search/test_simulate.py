"""The simulator: the real searcher and scheduler, a virtual clock, and recorded learning curves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from search.algorithm_config import SamplerConfig, SchedulerConfig
from search.budget_config import BudgetConfig
from search.curve_table import CurveTable
from search.domains import Domain, parse_domain
from search.ledger import Status
from search.simulate import main
from search.simulated_curves import Curve, RecordedCurves
from search.simulation import Machinery, SimulatedSearch, assemble, simulate
from search.space import Space
from trainables.errors import ConfigError

EPOCHS = 9
CURVES = Path(__file__).parents[1] / "benchmarks" / "curves"


def domain(**raw: Any) -> Domain:
    parsed, problems = parse_domain(raw)
    assert parsed is not None, problems
    return parsed


DOMAINS = {
    "optimizer": domain(type="categorical", values=["adamw", "sgd"]),
    "lr": domain(type="float", low=1e-4, high=1.0, log=True),
    "momentum": domain(type="float", low=0.0, high=0.9),  # there with sgd only
}
SPACE = Space(DOMAINS)


class Saturating:
    """Curves that rise towards a value that depends on lr, faster with sgd; above lr 0.5 the training diverges."""

    def curve(self, params: Mapping[str, Any]) -> Curve:
        values = np.array([value_of(params, epoch) for epoch in range(1, EPOCHS + 1)])
        seconds = 2.0 if params["optimizer"] == "sgd" else 1.0
        return Curve(values, 1 - values, np.full(EPOCHS, seconds))


def value_of(params: Mapping[str, Any], epoch: int) -> float:
    if params["lr"] > 0.5:
        return math.nan
    rate = 0.6 if params["optimizer"] == "sgd" else 0.3
    return round((1 - abs(math.log10(params["lr"]) + 2) / 4) * (1 - math.exp(-rate * epoch)), 3)


def search(scheduler: str = "asha", *, trials: int = 30, **sampler: Any) -> SimulatedSearch:
    return SimulatedSearch(
        space=SPACE,
        sampler=SamplerConfig(**{"startup_trials": 5, **sampler}),
        scheduler=SchedulerConfig(name=scheduler, max_epochs=EPOCHS),
        budget=BudgetConfig(trials=trials),
    )


def fates(machinery: Machinery) -> list[Any]:
    """All that the study holds of its trials but the times."""
    return [
        (trial.number, trial.params, trial.state, trial.intermediate_values, trial.values)
        for trial in machinery.store.trials()
    ]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield


@pytest.fixture(scope="module")
def started_ray() -> Iterator[None]:
    import ray

    from search.tuner import start_ray

    start_ray()
    yield
    ray.shutdown()


def train_along_the_curve(config: dict[str, Any]) -> None:
    """What the actor of a trial does, without the training: reports of known epochs come again after a pause."""
    import ray.tune

    best, best_epoch = 0.0, 0
    for epoch in range(1, EPOCHS + 1):
        value = value_of(config["params"], epoch)
        if math.isnan(value):
            ray.tune.report({"failure": "the loss became NaN", "cause": "DivergedError"})
            return
        if value > best:
            best, best_epoch = value, epoch
        metrics = {"epoch": epoch, "val_top1": value, "val_loss": 1 - value, "score": best, "best_epoch": best_epoch}
        times = {"train_s": 1.0, "val_s": 0.0, "images_per_s": 1.0}
        ray.tune.report({**metrics, **times, "done": epoch == EPOCHS})


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["asha", "asha_promotion", "curves"])
@pytest.mark.usefixtures("started_ray")
def test_it_decides_what_tune_decides(tmp_path: Path, scheduler: str) -> None:
    import ray.tune

    asked = search(scheduler, startup_trials=10)  # random ones, some of which diverge: the sampler learns to avoid that
    real = assemble(asked, devices=1)
    ray.tune.Tuner(
        train_along_the_curve,
        tune_config=ray.tune.TuneConfig(
            search_alg=real.searcher, scheduler=real.scheduler, num_samples=-1, reuse_actors=True
        ),
        run_config=ray.tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    ).fit()
    real.searcher.end_running_trials()

    virtual = simulate(asked, Saturating(), devices=1).machinery

    assert fates(virtual) == fates(real)
    assert len({state for _, _, state, _, _ in fates(real)}) == 3, "completed, pruned and failed trials are compared"


def test_trials_end_when_their_epochs_have_taken_their_time() -> None:
    done = simulate(search("none", trials=7, seed=3), Saturating(), devices=2)
    finished: dict[Any, float] = {}
    for event in done.trace.events:
        finished[event.key] = event.time_s
    free = [0.0, 0.0]  # the two devices: the earliest free one takes the next trial
    for record in done.machinery.ledger.records():
        started = min(free)
        took = 0.0 if record.status is Status.FAILED else EPOCHS * (2.0 if record.params["optimizer"] == "sgd" else 1.0)
        # One that diverges has no epoch on record, but the time until then is spent.
        took = took or (2.0 if record.params["optimizer"] == "sgd" else 1.0)
        free[free.index(started)] = started + took
        if record.status is not Status.FAILED:
            assert finished[record.number] == started + took
            assert record.train_s == took


@pytest.mark.parametrize("scheduler", ["asha", "asha_promotion", "hyperband", "median", "curves"])
def test_a_seed_is_one_search_and_no_epoch_is_trained_twice(scheduler: str) -> None:
    first, again = (simulate(search(scheduler), Saturating(), devices=3) for _ in range(2))
    assert first.trace.events == again.trace.events
    assert fates(first.machinery) == fates(again.machinery)
    assert fates(first.machinery) != fates(simulate(search(scheduler, seed=1), Saturating(), devices=3).machinery)
    epochs = [(event.key, event.epoch) for event in first.trace.events]
    assert len(set(epochs)) == len(epochs)
    begun = [record for record in first.machinery.ledger.records() if record.curve]
    assert len(begun) > 5
    for record in begun:
        assert list(record.curve.values()) == first.trace.curves[record.number].values[: record.epochs].tolist()


def test_a_search_is_cut_off_by_time_and_by_its_target() -> None:
    whole = simulate(search(trials=40), Saturating(), devices=2).trace
    cut = simulate(search(trials=40), Saturating(), devices=2, until_s=20.0)
    assert cut.trace.events == [event for event in whole.events if event.time_s <= 20.0]
    assert Status.OUT_OF_BUDGET in {record.status for record in cut.machinery.ledger.records()}
    target = whole.incumbents[len(whole.incumbents) // 2]
    reached = simulate(search(trials=40), Saturating(), devices=2, target=target.value).trace
    assert reached.events[-1] == target
    assert whole.time_to(target.value) == target.time_s
    # Another trial may report at the same moment.
    by_then = [event for event in whole.events if event.time_s <= target.time_s]
    assert whole.incumbent_at(target.time_s) == max(by_then, key=lambda event: event.value)


def test_what_has_no_curve_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"scheduler\.name: .* found pbt"):
        simulate(search("pbt"), Saturating(), devices=1)
    with pytest.raises(ConfigError, match=r"task\.metric: .* found val_loss"):
        simulate(replace(search(), metric="val_loss"), Saturating(), devices=1)


def table() -> CurveTable:
    empty = CurveTable.empty(DOMAINS, metric="val_top1", epochs=3)
    rows: list[dict[str, Any]] = [
        {"optimizer": "adamw", "lr": 1e-3},
        {"optimizer": "adamw", "lr": 1e-1},
        {"optimizer": "sgd", "lr": 1e-3, "momentum": 0.9},
        {"optimizer": "sgd", "lr": 1e-3, "momentum": 0.0},
    ]
    for index, row in enumerate(rows):
        values = [0.1 * index, 0.2] if index == 1 else [0.1 * index, 0.2, 0.3]
        empty = empty.with_training(row, values=values, losses=values, seconds=index + 1.0)
    return empty


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table().write(tmp_path / "curves.npz")
    read = CurveTable.read(tmp_path / "curves.npz")
    assert (read.metric, read.domains, read.epochs, len(read)) == ("val_top1", DOMAINS, 3, 4)
    for name in ("params", "values", "losses", "seconds"):
        np.testing.assert_array_equal(getattr(read, name), getattr(table(), name))
    assert np.isnan(read.values[1]).tolist() == [False, False, True], "it diverged"
    (tmp_path / "other.npz").write_bytes(b"something else")
    for path in (tmp_path / "other.npz", tmp_path / "missing.npz"):
        with pytest.raises(ConfigError, match=f"{path.name}: holds no recorded curves"):
            CurveTable.read(path)


def test_a_trial_gets_the_nearest_curve_that_is_left() -> None:
    curves = RecordedCurves(table())
    assert curves.take({"optimizer": "adamw", "lr": 5e-3}) == 0, "nearer in the logarithm"
    assert curves.take({"optimizer": "adamw", "lr": 5e-3}) == 1, "each once"
    assert curves.take({"optimizer": "adamw", "lr": 5e-3}) == 0, "when all are used, again"
    assert curves.take({"optimizer": "sgd", "lr": 0.5, "momentum": 0.2}) == 3, "never another optimizer"
    assert RecordedCurves(table(), agree=()).take({"optimizer": "sgd", "lr": 1e-1, "momentum": 0.9}) == 2
    whole = table()
    only_sgd = replace(whole, **{name: getattr(whole, name)[2:] for name in ("params", "values", "losses", "seconds")})
    with pytest.raises(ConfigError, match="no curve was recorded for the categorical values of optimizer: adamw"):
        RecordedCurves(only_sgd).take({"optimizer": "adamw", "lr": 0.1})


def test_the_command_simulates_the_recorded_curves(capsys: pytest.CaptureFixture[str]) -> None:
    space, curves = str(CURVES / "digits.yaml"), str(CURVES / "digits.npz")
    arguments = [space, "--curves", curves, "--devices", "4"]
    assert main([*arguments, "-o", "budget.trials=25"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("25 trials: ")
    assert "4 at a time\nbest: trial " in out
    assert main([*arguments, "-o", "scheduler.max_epochs=5"]) == 2
    assert "val_top1 over 16 epochs, found task.metric: val_top1 and scheduler.max_epochs: 5" in capsys.readouterr().err
    assert main([*arguments, "--curves", space]) == 2
    assert "digits.yaml: holds no recorded curves" in capsys.readouterr().err
    assert main([space, "--curves", curves, "--devices", "0"]) == 2
    assert "--devices: must be 1 or more, found 0" in capsys.readouterr().err
