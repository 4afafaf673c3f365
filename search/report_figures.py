"""What do the charts of a report show? The numbers that its script draws, and the places where it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from search.domains import CategoricalDomain, Domain
from search.ledger import TrialRecord
from search.report_html import Html, figure, param_value, section, tag
from search.report_source import ReportSource
from trainables.metric_names import METRIC_MODES, is_better


def chart_data(source: ReportSource) -> dict[str, Any]:
    """The trials as the page's script reads them; one short key a fact, as there may be thousands."""
    return {
        "metric": source.metric,
        "better": METRIC_MODES[source.metric],
        "maxEpochs": source.config.scheduler.max_epochs,
        "rungs": source.rungs if source.reduction_factor else [],
        "best": source.winner.number if source.winner is not None else None,
        "params": [_param(name, domain) for name, domain in source.domains.items()],
        "trials": [_trial(record, source) for record in source.records],
    }


def progress(
    records: Sequence[TrialRecord], *, metric: str, times: Mapping[int, tuple[float, float]]
) -> list[tuple[float, int, float]]:
    """How the best score rose while trials ended: seconds, epochs trained until then, best score so far.

    Trials count when they end, in that order; those whose time is unknown come last, by number, and without seconds
    of their own.
    """
    last = max((end for _, end in times.values()), default=0.0)
    order = sorted(records, key=lambda record: (times.get(record.number, (0.0, last))[1], record.number))
    points: list[tuple[float, int, float]] = []
    epochs, best = 0, None
    for record in order:
        epochs += record.trained_epochs
        if record.score is not None and record.status != "failed" and is_better(record.score, best, metric=metric):
            best = record.score
        if best is not None:
            points.append((times.get(record.number, (0.0, last))[1], epochs, best))
    return points


def history_section(source: ReportSource) -> Html:
    """Every trial's score and the best so far."""
    if not source.ranked:
        return Html("")
    label = f"Best {source.metric} so far and every trial's score"
    return section(
        "history",
        "How the best score was found",
        tag(
            "div",
            figure("history", data_by="trial", label=f"{label}, by trial number", caption="In the order proposed."),
            figure(
                "history",
                data_by="epochs",
                label=f"{label}, by epochs trained",
                caption="By the epochs that all trials have trained; a trial counts when it ends.",
            ),
            class_="pair",
        ),
        note="Each dot is a trial's best value, the line the best of all so far.",
    )


def curves_section(source: ReportSource) -> Html:
    """The search metric of every trial over its epochs."""
    if not any(len(record.curve) for record in source.records):
        return Html("")
    return section(
        "curves",
        "Learning curves",
        figure("curves", label=f"{source.metric} of {len(source.records)} trials over their epochs"),
        note="One line a trial, coloured by how it ended; the winner is drawn thick. Upright lines are epochs at which "
        "the trial scheduler compares trials."
        if source.reduction_factor
        else "One line a trial, coloured by how it ended; the winner is drawn thick.",
    )


def parameters_section(source: ReportSource) -> Html:
    """Parallel coordinates and a slice for every parameter that varied."""
    if len(source.ranked) < 2 or not source.domains:
        return Html("")
    return section(
        "parameters",
        "Parameters and scores",
        figure(
            "parallel",
            label=f"Parallel coordinates of {len(source.domains)} parameters and {source.metric}",
            caption="One line a trial, from its parameters to its score; the better, the stronger the colour. Drag "
            "along an axis to keep only the trials that pass there; click it to show all again.",
        ),
        figure("slices", label=f"{source.metric} against each parameter",
               caption="Each parameter against the score. Trials that do not have a parameter are left out."),
    )  # fmt: skip


def timeline_figure(source: ReportSource) -> Html | None:
    """When each trial ran; None where that is not known."""
    if not source.times:
        return None
    return figure(
        "timeline",
        label="When each trial was under way",
        caption="From when a trial was proposed, which may be before a worker was free, until its end.",
    )


def _param(name: str, domain: Domain) -> dict[str, Any]:
    if isinstance(domain, CategoricalDomain):
        return {"name": name, "values": [param_value(value) for value in domain.values]}
    return {"name": name, "low": domain.low, "high": domain.high, "log": domain.log}


def _trial(record: TrialRecord, source: ReportSource) -> dict[str, Any]:
    values = [_rounded(value) for value in record.curve.values()]
    times = source.times.get(record.number)
    consecutive = list(record.curve) == list(range(1, len(record.curve) + 1))
    trial: dict[str, Any] = {
        "n": record.number,
        "s": record.status.value,
        "p": {name: _param_value(value, source.domains.get(name)) for name, value in record.params.items()},
        "y": _rounded(record.score),
        "b": record.best_epoch,
        "e": record.epochs,
        "o": record.trained_epochs,
        "c": values,
    }
    if not consecutive:
        trial["x"] = list(record.curve)
    if times is not None:
        trial["t"] = [round(each, 1) for each in times]
    if record.cause:
        trial["f"] = record.cause
    return trial


def _param_value(value: Any, domain: Domain | None) -> Any:
    """Numbers stay numbers only where they have a place on a scale."""
    if domain is None or isinstance(domain, CategoricalDomain) or not isinstance(value, int | float):
        return param_value(value)
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _rounded(value: float | None) -> float | None:
    """Five digits are more than a screen shows; NaN and infinity, which JSON has not, become gaps."""
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return None
    return float(f"{value:.5g}")
