"""What will a search cost? `python -m search.plan SPACE.yaml` times real steps of every architecture, and adds up."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Literal

from trainables.errors import VistuneError

if TYPE_CHECKING:
    from rich.console import Console

    from search.cluster_nodes import Cluster
    from search.config import SearchConfig
    from search.plan_cost import Cost
    from search.plan_population import Population

_CHECKPOINT = 6  # a trial in training keeps weights and the optimizer's two states twice, beside its best weights
_GIB = 2**30
_FEW_TRIALS = 10
_ROUNDS = 4


@dataclass(frozen=True)
class Estimate:
    """What a whole search takes.

    Attributes:
        concurrent: trials at a time.
        epoch_s: seconds of an epoch of a trial, mean over draws of the space.
        wall_s, device_hours: of the search, without start-up and waiting.
        ends_by: the limit that is reached first.
        disk_gib: weights that stay and checkpoints of trials in training.
    """

    population: Population
    concurrent: int
    epoch_s: float
    wall_s: float
    device_hours: float
    ends_by: str
    disk_gib: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what a search is expected to take.

    Returns:
        0; 1 where some architecture could not be timed; 2 for a space that cannot be used.
    """
    parser = argparse.ArgumentParser(prog="python -m search.plan", description=__doc__)
    parser.add_argument("space", type=Path, help="YAML file of the search space")
    parser.add_argument("-o", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="as search.run")
    parser.add_argument(
        "--trials-at-a-time",
        type=int,
        metavar="N",
        help="of the cluster to plan for (default: what its nodes hold, or this machine)",
    )
    parser.add_argument(
        "--nodes", type=int, metavar="N", help="nodes of the cluster to plan for, all alike (default 1)"
    )
    parser.add_argument("--cpus", type=int, metavar="N", help="of each node (default: as many as this machine has)")
    parser.add_argument("--gpus", type=int, metavar="N", help="of each node (default: as many as this machine has)")
    parser.add_argument(
        "--speed", type=float, default=1.0, metavar="X", help="of its devices, this machine's being 1 (default 1)"
    )
    options = parser.parse_args(arguments)
    if (options.trials_at_a_time is not None and options.trials_at_a_time < 1) or not 0 < options.speed < math.inf:
        parser.error("--trials-at-a-time must be at least 1 and --speed above 0")
    described = [each for each in (options.nodes, options.cpus, options.gpus) if each is not None]
    if described and options.trials_at_a_time is not None:
        parser.error("give the nodes of a cluster, or --trials-at-a-time")
    if min(described, default=0) < 0 or options.nodes == 0:
        parser.error("--nodes must be at least 1, --cpus and --gpus at least 0")
    try:
        return _plan(options)
    except VistuneError as error:
        print(error, file=sys.stderr)
        return 2


def estimate(config: SearchConfig, costs: Sequence[Cost], *, concurrent: int, speed: float = 1.0) -> Estimate:
    """Adds up what a search takes.

    Args:
        concurrent: trials at a time.
        speed: of the devices, those on which the costs were measured being 1.

    Raises:
        ConfigError: if no architecture could be timed.
    """
    from search.plan_cost import mean_epoch_s
    from search.plan_population import expected_population

    epoch_s = mean_epoch_s(config, costs) / speed
    devices = _mean_workers(config) * config.resources.devices_per_worker
    trials, ends_by = 100, ""
    for _ in range(_ROUNDS):  # fewer trials train longer each, since the first at a rung go on
        trial_epochs = expected_population(config, trials=trials, concurrent=concurrent).epochs / trials
        limits = _limits(config, trial_epochs=trial_epochs, trial_s=trial_epochs * epoch_s, concurrent=concurrent)
        ends_by = min(limits, key=lambda name: limits[name])
        trials = max(1, round(limits[ends_by]))
    population = expected_population(config, trials=trials, concurrent=concurrent)
    work_s = population.epochs * epoch_s
    shared_s = work_s / min(_devices(config, concurrent), trials)  # where several trials share a device
    weights = mean(each.num_params for each in costs if each.problem is None) * 4
    kept = min(trials, config.keep.top or trials)
    return Estimate(
        population=population,
        concurrent=concurrent,
        epoch_s=epoch_s,
        wall_s=min(max(shared_s, population.longest * epoch_s), config.budget.time_s or math.inf),
        device_hours=work_s * devices / 3600,
        ends_by=ends_by,
        disk_gib=weights * (kept + _CHECKPOINT * concurrent) / _GIB,
    )


def _limits(config: SearchConfig, *, trial_epochs: float, trial_s: float, concurrent: int) -> dict[str, float]:
    """How many trials each limit of the budget allows."""
    budget = config.budget
    most = {
        "trials": budget.trials or config.search_space.num_combinations,
        "epochs": None if budget.epochs is None else budget.epochs / trial_epochs,
        "time": None if budget.time_s is None else budget.time_s * _devices(config, concurrent) / trial_s,
        "device_hours": None
        if budget.device_hours is None
        else budget.device_hours * 3600 / (trial_s * _mean_workers(config) * config.resources.devices_per_worker),
    }
    return {name: float(limit) for name, limit in most.items() if limit is not None}


def _plan(options: argparse.Namespace) -> int:
    from search.cluster_nodes import check_fits
    from search.config import load_search, with_absolute_root
    from search.console import open_console
    from search.describe import check_visibly, gather_visibly, time_fusion_visibly
    from search.earlier_runs import find_earlier
    from search.plan_cost import measure_costs

    config = with_absolute_root(load_search(options.space, overrides=options.overrides))
    find_earlier(config)
    nodes = _nodes(options, config)
    if options.trials_at_a_time is None:
        check_fits(config.resources, config.trial_sizes, nodes)
    with open_console() as console:
        gather_visibly(console, config, check_visibly(console, config))
        gain = 1.0
        if config.resources.fused:
            config, gain = time_fusion_visibly(console, config)
        concurrent = options.trials_at_a_time or _fitting(config, nodes)
        if options.gpus and not config.resources.gpus_per_worker:
            console.print("[yellow]warning[/yellow] --gpus counts for nothing: resources.gpus_per_worker is 0")
        console.print("timing a few steps of each architecture")
        costs = measure_costs(config)
        found = estimate(config, costs, concurrent=concurrent, speed=options.speed * gain)
        _describe(console, config, costs, found)
    return 1 if any(each.problem for each in costs) else 0


def _nodes(options: argparse.Namespace, config: SearchConfig) -> Cluster:
    """The cluster that is described, or this machine."""
    from search.cluster_nodes import Cluster, accelerator_of

    is_described = (options.nodes, options.cpus, options.gpus) != (None, None, None)
    node = {
        "CPU": float((os.cpu_count() or 1) if options.cpus is None else options.cpus),
        "GPU": float(_num_gpus() if options.gpus is None else options.gpus),
        # Whoever describes the nodes of a search that asks for an accelerator means nodes that have it.
        **(accelerator_of(config.resources) if is_described else {}),
    }
    return Cluster([node] * (options.nodes or 1))


def _fitting(config: SearchConfig, nodes: Cluster) -> int:
    """Trials at a time, of those that the nodes hold."""
    from search.cluster_nodes import worker_resources

    slots = nodes.slots(worker_resources(config.resources)) * config.resources.trials_at_a_slot
    fit = int(slots / _mean_workers(config))
    return max(1, min(fit, config.resources.max_concurrent_trials or fit))


def _describe(console: Console, config: SearchConfig, costs: Sequence[Cost], found: Estimate) -> None:
    from rich.table import Table

    from search.progress import format_duration

    table = Table(title="architectures, on this machine", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("name", "batch", "parameters", "memory (MiB)", "images/s", "epoch (s)"):
        justify: Literal["left", "right"] = "left" if name == "name" else "right"
        table.add_column(name, justify=justify, no_wrap=name != "name", overflow="fold")
    for arch in dict.fromkeys(each.arch for each in costs):
        own = [each for each in costs if each.arch == arch and each.problem is None]
        if not own:
            problem = next(each.problem for each in costs if each.arch == arch)
            console.print(f"{arch} could not be timed: {problem}", style="red", markup=False)
            continue
        table.add_row(
            arch,
            _span([each.batch_size for each in own], ",.0f"),
            _span([each.num_params for each in own], ",.0f"),
            _span([each.memory_mib for each in own], ",.0f"),
            _span([each.images_per_s for each in own], ",.0f"),
            _span([each.epoch_s for each in own], ".2f"),
        )
    console.print(table)
    reached = ", ".join(f"{count:.0f} epoch {mark}" for mark, count in found.population.reached.items())
    share = found.population.epochs / (found.population.trials * config.scheduler.max_epochs)
    ends = datetime.now() + timedelta(seconds=found.wall_s)
    lines = (
        ("trials", f"about {found.population.trials}, {found.concurrent} at a time; ends by budget.{found.ends_by}"),
        ("rungs", f"reach {reached}"),
        ("epochs", f"about {found.population.epochs:,.0f}, {share:.0%} of training every trial to the end"),
        ("an epoch", f"{found.epoch_s:.2f} s on average"),
        ("time", f"about {format_duration(found.wall_s)}, until {ends:%a %H:%M}"),
        ("devices", f"about {found.device_hours:.2f} device-hours"),
        ("disk", f"about {found.disk_gib:.2f} GiB"),
    )
    for name, text in lines:
        console.print(f"[dim]{name:<10}[/dim] {text}", highlight=False)
    notes = ["start-up, waiting and the final retrainings come on top"]
    if found.population.trials < _FEW_TRIALS:
        notes.append("with so few trials chance decides how many reach a rung")
    if config.resources.fused:
        notes.append("trials that share a device are fused as far as random ones agree")
    elif config.resources.trials_per_device > 1:
        notes.append("trials that share a device are taken to be no faster than one after the other")
    if config.resources.has_groups:
        notes.append("a group of workers is taken to be as fast as one with all its cores")
    console.print(
        f"[dim]Estimates: random trials whose early scores order them as the final ones do; {'; '.join(notes)}.[/dim]"
    )


def _devices(config: SearchConfig, concurrent: int) -> float:
    """On how many devices, or groups of them, so many trials run, each as fast as alone."""
    return max(1.0, concurrent / config.resources.trials_per_device)


def _mean_workers(config: SearchConfig) -> float:
    """Workers of a trial, on average over the architectures."""
    return mean(config.workers_of({"arch": arch}) for arch in config.architectures)


def _span(values: Sequence[float], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def _num_gpus() -> int:
    import torch

    return torch.cuda.device_count()


if __name__ == "__main__":
    sys.exit(main())
