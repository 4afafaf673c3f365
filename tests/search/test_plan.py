"""What a search is said to cost, before it costs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from search.config import SearchConfig, load_search
from search.plan import estimate, main
from search.plan_cost import Cost, drawn, mean_epoch_s, measure_costs
from search.plan_fusion import Gain, check_can_time, decided, expected_gain, measure_gains
from search.plan_population import expected_population
from tests.search.cli import TINY, write_space
from trainables.errors import ConfigError

COSTS = [Cost(arch="small_cnn", batch_size=64, num_params=2**20, epoch_s=2.0)]


def search(folder: Path, **sections: Any) -> SearchConfig:
    return load_search(write_space(folder, **sections))


@pytest.mark.parametrize(
    ("name", "trials", "reached", "epochs"),
    [
        ("none", 9, {1: 9, 3: 9, 9: 9}, 81),
        ("asha_promotion", 27, {1: 27, 3: 9, 9: 3}, 18 + 6 * 3 + 3 * 9),
        ("asha_promotion", 2, {1: 2, 3: 1, 9: 1}, 1 + 9),
    ],
)
def test_populations_that_are_known(
    tmp_path: Path, name: str, trials: int, reached: dict[int, float], epochs: float
) -> None:
    scheduler = {"name": name, "max_epochs": 9, "grace_period": 1, "reduction_factor": 3}
    found = expected_population(search(tmp_path, scheduler=scheduler), trials=trials)
    assert found.reached == reached
    assert found.epochs == epochs


def test_asha_lets_more_go_on_than_promotion_does(tmp_path: Path) -> None:
    scheduler = {"name": "asha", "max_epochs": 9, "grace_period": 1, "reduction_factor": 3}
    found = expected_population(search(tmp_path, scheduler=scheduler), trials=27)
    assert found.reached[1] == 27
    assert 9 < found.reached[3] < 18  # the first to arrive at a rung are among its best so far
    assert 3 < found.reached[9] < found.reached[3]


def test_trials_at_once_end_sooner_as_asha_revisits_its_decisions(tmp_path: Path) -> None:
    scheduler = {"name": "asha", "max_epochs": 27, "grace_period": 1, "reduction_factor": 3}
    alone, four = (
        expected_population(search(tmp_path, scheduler=scheduler), trials=60, concurrent=each) for each in (1, 4)
    )
    assert four.epochs < 0.9 * alone.epochs
    once = expected_population(search(tmp_path, scheduler={**scheduler, "revisit": False}), trials=60, concurrent=4)
    assert four.epochs < once.epochs


@pytest.mark.parametrize(
    ("budget", "ends_by", "trials"),
    [
        ({"trials": 10}, "trials", 10),
        ({"trials": 10, "epochs": 12}, "epochs", 4),
        ({"time": "1m"}, "time", 20),  # two at a time, 3 epochs of 2 s each
        ({"device_hours": 0.01, "trials": 100}, "device_hours", 6),
    ],
)
def test_the_limit_that_is_reached_first_decides(
    tmp_path: Path, budget: dict[str, Any], ends_by: str, trials: int
) -> None:
    config = search(tmp_path, budget=budget, scheduler={"name": "none", "max_epochs": 3})
    found = estimate(config, COSTS, concurrent=2)
    assert (found.ends_by, found.population.trials) == (ends_by, trials)
    assert found.wall_s == pytest.approx(trials * 3 * 2.0 / 2)
    assert found.device_hours == pytest.approx(trials * 6 / 3600)


def test_a_faster_cluster_takes_less_time_and_kept_weights_less_disk(tmp_path: Path) -> None:
    plain = search(tmp_path, scheduler={"name": "none", "max_epochs": 3}, budget={"trials": 40})
    kept = search(tmp_path, scheduler={"name": "none", "max_epochs": 3}, budget={"trials": 40}, keep={"top": 5})
    here, there = (estimate(plain, COSTS, concurrent=n, speed=speed) for n, speed in ((2, 1.0), (10, 4.0)))
    assert here.wall_s == pytest.approx(20 * there.wall_s)
    mib = 4 * 2**20 / 2**30  # of the weights of a trial, in GiB
    assert here.disk_gib == pytest.approx((40 + 6 * 2) * mib)
    assert estimate(kept, COSTS, concurrent=2).disk_gib == pytest.approx((5 + 6 * 2) * mib)


@pytest.mark.parametrize("fused", [False, True])
def test_trials_that_share_a_device_are_planned_as_if_they_took_turns(tmp_path: Path, fused: bool) -> None:
    alone = search(tmp_path, scheduler={"name": "none", "max_epochs": 3}, budget={"trials": 40})
    shared = alone.model_copy(
        update={"resources": alone.resources.model_copy(update={"trials_per_device": 4, "fused": fused})}
    )
    one, other = estimate(alone, COSTS, concurrent=2), estimate(shared, COSTS, concurrent=8)
    assert (one.wall_s, one.device_hours) == (other.wall_s, other.device_hours)


def test_architectures_count_as_often_as_they_are_drawn(tmp_path: Path) -> None:
    archs = {"type": "categorical", "values": ["small_cnn", "resnet10t"]}
    config = search(tmp_path, space={**TINY["space"], "arch": archs})
    costs = [*COSTS, Cost(arch="resnet10t", batch_size=64, num_params=1, epoch_s=6.0)]
    assert mean_epoch_s(config, costs) == pytest.approx(4.0, abs=0.4)
    broken = [*COSTS, Cost(arch="resnet10t", batch_size=64, problem="no memory")]
    assert mean_epoch_s(config, broken) == 2.0


def test_real_steps_are_timed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    space = write_space(tmp_path)
    costs = measure_costs(load_search(space))
    assert {each.batch_size for each in costs} == {64, 128}
    assert all(each.epoch_s > 0 and each.images_per_s > 0 and each.num_params > 10**5 for each in costs)
    assert main([str(space), "--trials-at-a-time", "2"]) == 0
    out = capfd.readouterr().out
    assert "about 4, 2 at a time; ends by budget.trials" in out
    assert main([str(space), "-o", "space.arch=nonesuch"]) == 2


def test_trials_of_a_device_are_timed_alone_and_fused(tmp_path: Path) -> None:
    space = {**TINY["space"], "arch": {"type": "categorical", "values": ["small_cnn", "test_resnet"]}, "dropout": 0.2}
    resources = {"trials_per_device": 4, "fused": "auto"}
    config = search(tmp_path, space=space, resources=resources)

    gains = {gain.arch: gain for gain in measure_gains(config)}

    assert gains["small_cnn"].ratio > 0 and not gains["small_cnn"].reason
    assert gains["test_resnet"].ratio == 1.0 and "dropout" in gains["test_resnet"].reason


@pytest.mark.parametrize(("ratio", "fused", "trials"), [(3.0, True, 4), (1.0, False, 1)])
def test_what_is_faster_is_chosen(tmp_path: Path, ratio: float, fused: bool, trials: int) -> None:
    config = search(tmp_path, resources={"trials_per_device": 4, "fused": "auto"})
    gain = expected_gain(config, [Gain("small_cnn", 64, 4, ratio)])

    assert 1.0 <= gain <= ratio, "of four random trials of two batch sizes not all are alike"
    chosen = decided(config, gain).resources
    assert (chosen.fused, chosen.trials_per_device) == (fused, trials)


def test_trials_of_a_gpu_are_not_timed_where_there_is_none(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    config = search(tmp_path, resources={"trials_per_device": 4, "fused": "auto", "gpus_per_worker": 1})
    with pytest.raises(ConfigError, match="it has no GPU"):
        check_can_time(config)


def test_the_plan_of_trials_of_a_gpu_is_timed_here(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    changes = ["resources.gpus_per_worker=1", "resources.trials_per_device=2", "resources.fused=true"]
    overrides = [word for change in changes for word in ("-o", change)]
    assert main([str(write_space(tmp_path)), "--trials-at-a-time", "2", *overrides]) == 0
    assert "random trials, of which few are alike" in capfd.readouterr().out


def test_a_search_takes_at_least_as_long_as_its_longest_trial(tmp_path: Path) -> None:
    scheduler = {"max_epochs": 64, "reduction_factor": 4}
    many = estimate(search(tmp_path, scheduler=scheduler, budget={"trials": 64}), COSTS, concurrent=64)
    assert many.wall_s >= 64 * 2.0
    assert many.wall_s > many.population.epochs * 2.0 / 64
    for name in ("none", "asha_promotion"):
        few = search(tmp_path, scheduler={"name": name, "max_epochs": 9}, budget={"trials": 3})
        assert estimate(few, COSTS, concurrent=1000).wall_s >= 9 * 2.0
    timed = search(tmp_path, scheduler=scheduler, budget={"trials": 64, "time": "10s"})
    assert estimate(timed, COSTS, concurrent=64).wall_s == 10.0


@pytest.mark.parametrize("asked", [["--trials-at-a-time", "0"], ["--speed", "0"], ["--speed", "nan"]])
def test_a_cluster_that_cannot_be_is_refused(asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["x.yaml", *asked])
    assert "--trials-at-a-time must be at least 1 and --speed above 0" in capsys.readouterr().err


def test_a_described_cluster_says_how_many_trials_it_holds(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    space = write_space(tmp_path, resources={"gpus_per_worker": 0.5, "cpus_per_worker": 2, "accelerator": "A100"})
    assert main([str(space), "--nodes", "3", "--cpus", "16", "--gpus", "2"]) == 0
    assert ", 12 at a time; ends by budget.trials" in capfd.readouterr().out
    assert main([str(space), "--nodes", "3", "--cpus", "2", "--gpus", "2"]) == 0
    assert ", 3 at a time; ends by budget.trials" in capfd.readouterr().out
    assert main([str(space), "--nodes", "3", "--cpus", "16", "--gpus", "0"]) == 2
    assert "GPU" in capfd.readouterr().err
    for wrong in (["--nodes", "0"], ["--gpus", "-1"], ["--nodes", "2", "--trials-at-a-time", "3"]):
        with pytest.raises(SystemExit, match="2"):
            main([str(space), *wrong])


def test_curves_are_planned_alike_for_losses_and_for_shares(tmp_path: Path) -> None:
    scheduler = {"name": "curves", "max_epochs": 20, "grace_period": 2}
    data = {"data": {"name": "digits"}}
    top1, loss = (
        expected_population(search(tmp_path, scheduler=scheduler, task={**data, "metric": metric}), trials=40).epochs
        for metric in ("val_top1", "val_loss")
    )
    assert loss == pytest.approx(top1, rel=0.2) and loss < 0.8 * 40 * 20


def test_what_is_forbidden_is_not_timed(tmp_path: Path) -> None:
    forbid = [{"batch_size": 128}]
    assert {trial.batch_size for trial in drawn(search(tmp_path, forbid=forbid))} == {64}
