"""What did a search find, in a paragraph, and what should make a person careful about it?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from statistics import mean

from search.domains import CategoricalDomain, Domain
from search.ledger import Status, TrialRecord
from search.rank_correlation import RungCorrelation, early_stopping_warning
from search.report_html import duration, number, param_value
from search.report_source import ReportSource
from trainables.hyperparameters import Hyperparameters

# Scores that are a share of images, so that chance alone moves them by a known amount.
_SHARES = ("val_top1", "val_top5", "val_exact_match")

# A test interval wider than this leaves open what most searches want to know.
_WIDE_INTERVAL = 0.05
_MANY_FAILURES = 0.2
_FEW_VALUES = 4  # of a whole-number domain: its edge is no sign that it should be wider
_EDGE = 0.02  # of a range


def story(source: ReportSource) -> str:
    """The search in a paragraph of plain words."""
    parts = (_searched, _began, _ended, _won, _retrained, _tested)
    return " ".join(sentence for part in parts for sentence in part(source))


def cautions(source: ReportSource, correlations: tuple[RungCorrelation, ...]) -> list[str]:
    """What limits the findings, a sentence or two each; the gravest first."""
    found = [
        *_about_ending(source),
        *_about_winner(source),
        *_about_test(source),
        early_stopping_warning(correlations, reduction_factor=source.reduction_factor),
        *_about_edges(source),
        *_about_failures(source),
    ]
    return [each for each in found if each]


def test_metric(source: ReportSource) -> tuple[str, float] | None:
    """Name and value of the search's metric on the test split, or of the one that has an interval; None without."""
    if source.test is None:
        return None
    wanted = (source.metric.removeprefix("val_"), interval_metric(source))
    return next(((name, float(source.test[name])) for name in wanted if name in source.test), None)


def interval_metric(source: ReportSource) -> str:
    """The test metric whose 95 % interval is known."""
    return "exact_match" if source.test is not None and "exact_match" in source.test else "top1"


def fates(source: ReportSource) -> Counter[Status]:
    """How many trials ended in which way."""
    return Counter(record.status for record in source.records)


def _searched(source: ReportSource) -> Iterator[str]:
    config, domains = source.config, source.domains
    images = source.num_images
    counts = f" ({images['train']:,} images to train on, {images['val']:,} to validate)" if "val" in images else ""
    names = list(domains)
    listed = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    what = f"{len(names)} parameter{_s(len(names))} ({listed})" if names else "no parameters"
    yield (
        f"This search varied {what} on {config.task.data.name}{counts}, for at most {config.scheduler.max_epochs} "
        f"epochs a trial; the sampler was {config.sampler.name}, the trial scheduler {config.scheduler.name}."
    )


def _began(source: ReportSource) -> Iterator[str]:
    """What it knew of earlier runs; their trials are none of this one's."""
    for run in source.start.get("runs", ()):
        best = "the best" if run["again"] == 1 else f"the best {run['again']}"
        if run["carried"]:
            again = f", and ran {best} of them again" if run["again"] else ""
            yield f"It began with what {run['carried']} of the {run['trials']} trials of {run['run']} had shown{again}."
        elif run["again"]:
            yield f"It tried {best} of {run['run']} first, whose scores did not hold here."


def _ended(source: ReportSource) -> Iterator[str]:
    records, fate = source.records, fates(source)
    if not records:
        yield "No trial has been run yet."
        return
    words = {
        Status.COMPLETED: "trained to the end",
        Status.STOPPED: "stopped early",
        Status.PAUSED: "paused",
        Status.OUT_OF_BUDGET: "cut off by the budget",
        Status.FAILED: "failed",
        Status.RUNNING: "unfinished",
        Status.WAITING: "waiting",
    }
    parts = [f"{fate[status]} {text}" for status, text in words.items() if fate[status]]
    epochs = sum(record.trained_epochs for record in records)
    places = sum(record.lineage is None for record in records)
    most = places * source.config.scheduler.max_epochs
    elapsed = source.summary.get("elapsed_s")
    took = f" in {duration(elapsed)}" if elapsed else ""
    yield (
        f"Of {len(records)} trial{_s(len(records))}, {_listed(parts)}. They trained {epochs:,} epochs{took}, "
        f"{100 * epochs / most:.0f} % of what training every one to the end would have taken."
    )


def _won(source: ReportSource) -> Iterator[str]:
    """Who was best in the search; of which, where there are any, the retrainings chose."""
    winner = source.ranked[0] if source.ranked else None
    if not source.records:
        return
    if winner is None or winner.score is None:
        yield "None has a score yet, so there is no winner."
        return
    verb = "leads" if source.state != "finished" else "led the search" if source.final else "won"
    params = ", ".join(f"{name} {param_value(value)}" for name, value in winner.params.items())
    yield (
        f"Trial {winner.number} {verb} with {source.metric} {number(winner.score)} at epoch {winner.best_epoch}"
        f"{f' ({params})' if params else ''}."
    )
    if len(source.ranked) > 1:
        second = source.ranked[1]
        gap = abs(winner.score - (second.score or 0.0))
        in_images = _in_images(gap, source)
        yield (
            f"The runner-up, trial {second.number}, has {number(second.score)}, "
            + ("the same score." if gap == 0 else f"{number(gap)} behind{in_images}.")
        )


def _retrained(source: ReportSource) -> Iterator[str]:
    """What the best trials reached with other seeds, and what all models of the winner reached on the test split."""
    if not source.final:
        return
    final = source.final
    means = {each["trial"]: mean(each["scores"]) for each in final["candidates"]}
    told = _listed([f"trial {trial} {number(value)}" for trial, value in means.items()])
    seeds = len(final["candidates"][0]["seeds"])
    yield (
        f"Trained again with {seeds} other seed{_s(seeds)}, the best reached on average {told}; "
        f"trial {final['winner']} was chosen."
    )
    if final["test_interval"] is not None:
        center, low, high = final["test_interval"]
        yield (
            f"Its {len(final['tests'])} models reach on average {final['metric']} {number(center)} on the test split "
            f"(95 % interval of the mean {number(low)} to {number(high)}), {number(abs(final['optimism_gap']))} "
            f"{'worse' if final['optimism_gap'] >= 0 else 'better'} than its score in the search."
        )


def _tested(source: ReportSource) -> Iterator[str]:
    found = test_metric(source)
    if source.test is None or found is None:
        return
    name, value = found
    low, high = source.test["interval95"]
    interval = interval_metric(source)
    words = f"95 % interval {number(low)} to {number(high)}"
    shown = words if name == interval else f"{interval} {number(source.test[interval])}, {words}"
    who = "the first of them, which is the one exported," if source.final else f"trial {source.test['trial']}"
    yield (
        f"On {source.test['images']:,} test images that the search never saw, {who} reaches {name} {number(value)} "
        f"({shown})."
    )


def _about_ending(source: ReportSource) -> Iterator[str]:
    if source.state == "finished":
        reason = source.summary.get("ended_because")
        if reason:
            yield f"The search ended before its trials were used up: {reason}."
        return
    reason = source.summary.get("ended_because")
    yield (
        f"This run is {source.state}{f' ({reason})' if reason else ''}: what is shown is what was known when the page "
        "was written."
    )


def _about_winner(source: ReportSource) -> Iterator[str]:
    winner = source.winner
    if winner is None or winner.score is None:
        return
    if not source.final:  # else other seeds have told close trials apart
        yield from _about_close_trials(source, winner.score)
    if winner.status is Status.OUT_OF_BUDGET:
        yield "The winner was still training when the budget ended, so its score may not be its best."
    elif winner.status is Status.STOPPED and not source.final:
        yield (
            f"The trial scheduler stopped the winner at epoch {winner.epochs} of "
            f"{source.config.scheduler.max_epochs}; trained to its end it may come to more, as final.top_k and "
            "final.seeds do with the best."
        )
    elif winner.best_epoch == winner.epochs == source.config.scheduler.max_epochs and len(winner.curve) > 1:
        yield "The winner's best epoch is its last one: more epochs (scheduler.max_epochs) may improve it further."


def _about_close_trials(source: ReportSource, score: float) -> Iterator[str]:
    tied = [record for record in source.ranked[1:] if record.score == score]
    if tied:
        yield (
            f"{len(tied)} other trial{_s(len(tied))} ha{'s' if len(tied) == 1 else 've'} exactly the winning score; "
            "the lower validation loss decided."
        )
    images = source.num_images.get("val")
    if source.metric in _SHARES and images and 0 < score < 1:
        error = math.sqrt(score * (1 - score) / images)
        close = [record for record in source.ranked[1:] if score - (record.score or 0.0) <= error]
        if len(close) > len(tied):
            yield (
                f"{len(close)} other trial{_s(len(close))} lie{'s' if len(close) == 1 else ''} within one standard "
                f"error of the winner ({number(error)} with {images:,} validation images): their order is mostly "
                "chance."
            )


def _about_test(source: ReportSource) -> Iterator[str]:
    winner = source.winner
    if source.test is None:
        return
    if winner is not None and source.test["trial"] != winner.number:
        yield (
            f"The test split was opened for trial {source.test['trial']}; the best trial now is {winner.number}, which "
            "has not been tested."
        )
    earlier = len(source.test.get("earlier", ()))
    if earlier:
        yield (
            f"The test split was opened {earlier + 1} times in this run, for one winner after another as it was "
            "extended: the best of several test scores is optimistic."
        )
    low, high = source.test["interval95"]
    if high - low > _WIDE_INTERVAL:
        yield (
            f"The test split has few images ({source.test['images']:,}): its interval is {number(high - low)} wide, so "
            "differences smaller than that between runs mean little."
        )
    same = source.metric == f"val_{interval_metric(source)}"
    if same and winner is not None and winner.score is not None and winner.score > high:
        yield (
            f"The winner's validation score {number(winner.score)} lies above the whole test interval: picking the "
            "best of many trials makes its validation score look better than it is."
        )


def _about_edges(source: ReportSource) -> Iterator[str]:
    winner = source.winner
    if winner is None:
        return
    for name, domain in source.domains.items():
        edge = _edge_of(name, winner, domain)
        if edge is not None:
            yield (
                f"The winner's {name} {param_value(winner.params[name])} lies at the {edge} end of its range "
                f"({domain.describe()}): a wider range may hold better values."
            )


def _edge_of(name: str, winner: TrialRecord, domain: Domain) -> str | None:
    """lower or upper, where a wider range would be possible; else None."""
    value = winner.params.get(name)
    if isinstance(domain, CategoricalDomain) or not isinstance(value, int | float):
        return None
    if domain.num_values is not None and domain.num_values <= _FEW_VALUES:
        return None
    low, high, at = float(domain.low), float(domain.high), float(value)
    if domain.log:
        low, high, at = math.log(low), math.log(high), math.log(at)
    place = (at - low) / (high - low)
    lower, upper = _hard_bounds(name)
    if place <= _EDGE and domain.low != lower:
        return "lower"
    return "upper" if place >= 1 - _EDGE and domain.high != upper else None


def _hard_bounds(name: str) -> tuple[float | None, float | None]:
    """Between which values a hyperparameter may lie at all."""
    field = Hyperparameters.model_fields.get(name)
    lower: float | None = None
    upper: float | None = None
    for rule in field.metadata if field is not None else ():
        lower = getattr(rule, "ge", lower)
        upper = getattr(rule, "le", upper)
    return lower, upper


def _about_failures(source: ReportSource) -> Iterator[str]:
    failed = fates(source)[Status.FAILED]
    if failed and failed > _MANY_FAILURES * len(source.records):
        yield f"{failed} of {len(source.records)} trials failed: the search has seen less of the space than it seems."


def _in_images(gap: float, source: ReportSource) -> str:
    images = source.num_images.get("val")
    if source.metric not in _SHARES or not images:
        return ""
    count = round(gap * images)
    return f" ({count} of {images:,} validation images)"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _s(count: int) -> str:
    return "" if count == 1 else "s"
