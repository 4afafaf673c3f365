"""What do earlier runs have to say to a new search? Their trials as far as they hold, and why the others do not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from search.carry_over import CarryOver, NotHereError
from search.config import SearchConfig
from search.earlier_runs import Earlier
from search.knowledge import Knowledge, KnownTrial, Params, TakenRun
from search.ledger import Status, TrialRecord, pareto_front, rank
from search.report_source import read_json, read_trials, records_of, taken_over
from trainables.errors import ConfigError

# What decides how long an epoch takes, of what is kept of a machine.
_MACHINE = ("machine", "cpus", "gpus")


def gather(
    config: SearchConfig,
    earlier: Sequence[Earlier],
    *,
    fingerprint: str | None,
    hardware: Mapping[str, Any] | None = None,
) -> Knowledge:
    """What the earlier runs have to say to this search. Nothing of theirs is changed.

    A trial carries over with its curve where it trained what a trial of this space would train, on the same images,
    division, epochs and metric. Such a trial need not be run again, and is not: but as only a trial of this search can
    be its winner, those that may be (`retry`) are, as the first; with several objectives these are the Pareto front.
    Where no trial of a run carries over, for these reasons or because its scores are of another task, the best of its
    parameter sets that fit (`top`) are tried first instead.

    Args:
        fingerprint: of this search's images; None, where no images are read, compares what was configured.
        hardware: this machine, as in `environment.json`.

    Raises:
        ConfigError: if a study or another file of an earlier run is damaged.
    """
    found = Knowledge()
    for each in earlier:
        try:
            taken = _take(config, each, fingerprint=fingerprint, hardware=hardware)
        except ConfigError as error:
            raise ConfigError(f"{each.where}.run: {error}") from error
        fresh = tuple(point for point in taken.points if point not in found.points)
        found = Knowledge(found.trials + taken.trials, found.points + fresh, found.runs + taken.runs)
    # What a person asks for is run, whatever is known of it.
    searched = config.search_space.searched
    asked = [{name: value for name, value in each.items() if name in searched} for each in config.starting_points]
    return replace(
        found, trials=tuple(replace(each, again=each.again or dict(each.params) in asked) for each in found.trials)
    )


def _take(
    config: SearchConfig, earlier: Earlier, *, fingerprint: str | None, hardware: Mapping[str, Any] | None
) -> Knowledge:
    """What one earlier run has to say."""
    environment = read_json(earlier.paths.environment) or {}
    study = read_trials(earlier.paths)
    records = records_of(study.trials, earlier.config)
    machine = environment.get("hardware", {})
    same_machine = hardware is not None and all(machine.get(key) == hardware.get(key) for key in _MACHINE)
    obstacles = list(
        _obstacles(config, earlier, environment, fingerprint=fingerprint, same_machine=same_machine),
    )
    carry = CarryOver(there=earlier.config, here=config, names=earlier.asked.map)
    reasons = Counter(reason for reason in map(_unusable, records) if reason is not None)
    usable = rank([each for each in records if _unusable(each) is None], metric=earlier.config.metric)
    exact: dict[int, Params] = {}
    missed = Counter[str]()
    for record in usable if not obstacles else ():
        try:
            exact[record.number] = carry.exact(record.params)
        except NotHereError as error:
            missed[str(error)] += 1
    if exact:
        carried = [record for record in usable if record.number in exact]
        points = [exact[number] for number in _may_win(config, carried, retry=earlier.asked.retry)]
        fitting = len(exact)
    else:
        recipes, unfit = _recipes(carry, usable)
        points, fitting = recipes[: earlier.asked.top], len(recipes)
        missed = unfit if obstacles else missed
    reasons += missed
    trials = tuple(
        KnownTrial(
            run=earlier.name,
            trial=record.number,
            params=exact[record.number],
            curve={epoch: value for epoch, value in record.curve.items() if math.isfinite(value)},
            score=record.score or 0.0,
            complete=record.status is Status.COMPLETED,
            objectives={name: record.objectives[name] for name in config.objectives},
            train_s=record.train_s if same_machine else 0.0,
            again=exact[record.number] in points,
        )
        for record in usable
        if record.number in exact
    )
    taken = TakenRun(
        run=earlier.name,
        trials=len(records),
        carried=len(trials),
        again=len(points),
        lines=tuple(
            _lines(
                earlier,
                total=len(records),
                carried=len(trials),
                points=len(points),
                fitting=fitting,
                obstacles=obstacles,
                reasons=reasons,
                parameters=carry.parameters_in_words(),
                second_hand=taken_over(study.trials),
            )
        ),
        nothing=not trials and not points,
    )
    return Knowledge(trials, tuple(points), (taken,))


def _recipes(carry: CarryOver, usable: Sequence[TrialRecord]) -> tuple[list[Params], Counter[str]]:
    """Of trials, best first, the parameter sets that fit, each once; and why the others do not."""
    found: list[Params] = []
    unfit = Counter[str]()
    for record in usable:
        try:
            recipe = carry.recipe(record.params)
        except NotHereError as error:
            unfit[str(error)] += 1
            continue
        if recipe not in found:
            found.append(recipe)
    return found, unfit


def _may_win(config: SearchConfig, carried: Sequence[TrialRecord], *, retry: int | None) -> list[int]:
    """The trials to be run again, by number: as many as were asked for, or as may be what the search is about.

    Args:
        carried: from best to worst.
    """
    numbers = [record.number for record in carried]
    if not config.objectives:
        return numbers[: (config.final.top_k if config.final.seeds else 1) if retry is None else retry]
    front = pareto_front(carried, metric=config.metric, objectives=config.objectives)
    return sorted(numbers, key=lambda number: number not in front)[: len(front) if retry is None else retry]


def _unusable(record: TrialRecord) -> str | None:
    """Why a trial says nothing, wherever it would be tried; None when it does."""
    if record.status is Status.FAILED:
        return f"failed ({record.cause})" if record.cause else "failed"
    if record.score is None:
        return "without a score"
    return "going on from the weights of another" if record.lineage is not None else None


def _obstacles(
    config: SearchConfig,
    earlier: Earlier,
    environment: Mapping[str, Any],
    *,
    fingerprint: str | None,
    same_machine: bool,
) -> Iterator[str]:
    """Why scores of the earlier run do not hold for this search."""
    there, here = earlier.config, config
    before = environment.get("data", {}).get("fingerprint")
    if fingerprint is None:
        if there.task.data != here.task.data:
            yield "other images"
    elif before != fingerprint:
        yield f"other images (fingerprint {before or 'unknown'} there, {fingerprint} here)"
    if there.task.split != here.task.split:
        yield "another division of the images"
    if there.metric != here.metric:
        yield f"{there.metric} there, {here.metric} here"
    missing = [name for name in here.objectives if name not in there.objectives]
    if missing:
        yield f"{', '.join(missing)} not measured there"
    elif "latency_ms" in here.objectives and not same_machine:
        yield "latency_ms of another machine"
    if there.scheduler.max_epochs != here.scheduler.max_epochs:
        yield f"max_epochs {there.scheduler.max_epochs} there, {here.scheduler.max_epochs} here"
    elif there.scheduler.plan.model_dump() != here.scheduler.plan.model_dump() and _partial(there, here):
        yield "early epochs on other parts of the images"


def _partial(there: SearchConfig, here: SearchConfig) -> bool:
    return any(each.scheduler.fidelity != "epochs" for each in (there, here))


def _lines(
    earlier: Earlier,
    *,
    total: int,
    carried: int,
    points: int,
    fitting: int,
    obstacles: Sequence[str],
    reasons: Mapping[str, int],
    parameters: str | None,
    second_hand: int,
) -> Iterator[str]:
    """What is said of a run: a first line, and below it, indented, what did not carry over, the most frequent first."""
    best = "the best is" if points == 1 else f"the best {points} are"
    if carried:
        again = f"{best} run again first" if points else "none is run again (retry: 0), so none of them can win here"
        yield f"{earlier.name}: {carried} of {total} trials carried over; {again}"
    else:
        why = f": its scores do not hold here ({'; '.join(obstacles)})" if obstacles else ""
        then = "none of its parameter sets fits"
        if fitting:
            tried = f"{best} tried first" if points else "none is tried (top: 0)"
            then = f"of {fitting} parameter sets that fit, {tried}"
        yield f"{earlier.name}: none of {total} trials carried over{why}; {then}"
    for reason, count in sorted(reasons.items(), key=lambda pair: -pair[1]):
        yield f"  {count} {reason}"
    if second_hand:
        yield f"  {second_hand} of other runs, from which it started itself; name those runs too"
    if parameters is not None:
        yield f"  parameters: {parameters}"
