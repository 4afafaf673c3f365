"""How would a search go? `python -m search.simulate SPACE.yaml --curves FILE` replays recorded learning curves."""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import optuna

from search.config import SearchConfig, load_search, with_absolute_root
from search.curve_table import CurveTable
from search.earlier_runs import find_earlier
from search.gathering import gather
from search.knowledge import Knowledge
from search.simulated_curves import RecordedCurves
from search.simulation import Simulated, SimulatedSearch, simulate
from trainables.errors import ConfigError


def simulated(
    config: SearchConfig, table: CurveTable, *, devices: int, knowledge: Knowledge | None = None
) -> Simulated:
    """The search of a space file with recorded curves for its trials; `budget.time` counts on the virtual clock.

    Args:
        knowledge: what it starts from; none by default.

    Raises:
        ConfigError: if the search is endless, or the curves are not of such trials.
    """
    if not config.budget.is_limited:
        raise ConfigError("budget: a simulated search needs an end, found no limit; set budget.trials or budget.time")
    if config.objectives:
        names = ", ".join(config.task.metric)
        raise ConfigError(f"task.metric: recorded curves know no costs, found {names}; keep {config.metric}")
    if table.metric != config.metric or table.epochs != config.scheduler.max_epochs:
        raise ConfigError(
            f"the curves are of {table.metric} over {table.epochs} epochs, found task.metric: {config.metric} and "
            f"scheduler.max_epochs: {config.scheduler.max_epochs}; set these to the same"
        )
    knowledge = knowledge or Knowledge()
    search = SimulatedSearch(
        space=config.search_space,
        sampler=config.sampler,
        scheduler=config.scheduler,
        metric=config.metric,
        budget=config.budget,
        recipes=config.first_points(knowledge.points),
        known=knowledge.trials,
    )
    until_s = math.inf if config.budget.time_s is None else config.budget.time_s
    return simulate(search, RecordedCurves(table), devices=devices, until_s=until_s)


def told(done: Simulated, *, devices: int) -> Iterator[str]:
    """What a simulated search did, in lines for a person."""
    ledger, events = done.machinery.ledger, done.trace.events
    fates = Counter(str(record.status) for record in ledger.records())
    yield f"{fates.total()} trials: {', '.join(f'{count} {fate}' for fate, count in fates.most_common())}"
    yield f"{len(events)} epochs in {events[-1].time_s if events else 0:.0f} virtual seconds, {devices} at a time"
    best = ledger.best()
    if best is not None:
        reached = next(each for each in events if each.key == best.number and each.epoch == best.best_epoch)
        yield f"best: trial {best.number} with {ledger.metric} {best.score:.4f}, after {reached.time_s:.0f} s"
        yield from (f"  {name}: {value}" for name, value in best.params.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulates a search; 0 when it went through, 2 when something given is unusable."""
    parser = argparse.ArgumentParser(prog="python -m search.simulate", description=__doc__)
    parser.add_argument("space", type=Path, metavar="SPACE.yaml")
    parser.add_argument("--curves", type=Path, required=True, metavar="FILE", help="recorded learning curves, .npz")
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="trials at a time")
    parser.add_argument("-o", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        if given.devices < 1:
            raise ConfigError(f"--devices: must be 1 or more, found {given.devices}")
        config = with_absolute_root(load_search(given.space, overrides=given.overrides))
        knowledge = gather(config, find_earlier(config), fingerprint=None)
        done = simulated(config, CurveTable.read(given.curves), devices=given.devices, knowledge=knowledge)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join([*(line for run in knowledge.runs for line in run.lines), *told(done, devices=given.devices)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
