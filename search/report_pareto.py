"""Which trade-offs did a search with several objectives find? A chart for each objective, and a table of the front."""

from __future__ import annotations

from typing import Any

from search.ledger import Status, pareto_front
from search.report_html import Html, figure, section, table
from search.report_source import ReportSource
from trainables.metric_names import STATIC_OBJECTIVES


def pareto_section(source: ReportSource) -> Html:
    """Empty for a search with one objective, or without a trial that has a score."""
    objectives, metric = source.config.objectives, source.metric
    front = set(front_numbers(source))
    if not front:
        return Html("")
    best = [record for record in source.ranked if record.number in front]
    rows = (
        [
            record.number,
            record.score,
            *(shown_cost(record.objectives[name]) for name in objectives),
            "stopped early" if record.status is Status.STOPPED else record.status.value,
        ]
        for record in best
    )
    return section(
        "pareto",
        "Pareto front",
        *(
            figure("pareto", label=f"{metric} against {name} of {len(source.ranked)} trials", data_objective=name)
            for name in objectives
        ),
        table(
            ["trial", metric, *objectives, "how it ended"],
            rows,
            numeric=range(2 + len(objectives)),
            class_="narrow",
            caption="Trials on the Pareto front, best score first",
        ),
        note=f"Large dots are on the front: no other trial is as good in {metric} and in "
        f"{' and '.join(objectives)} and better in one. Any of them is written by python -m search.export "
        f"{source.paths.name} --trial N. "
        + " ".join(f"{name}: {STATIC_OBJECTIVES[name]}." for name in objectives)
        + " Scores are on the validation split; the test split was opened for the winner only.",
    )


def pareto_data(source: ReportSource) -> dict[str, Any] | None:
    """The same for the page's script."""
    if not source.config.objectives:
        return None
    front = set(front_numbers(source))
    points = [
        {"n": record.number, "score": record.score, "costs": dict(record.objectives), "front": record.number in front}
        for record in source.ranked
    ]
    return {"metric": source.metric, "lines": len(source.config.objectives) == 1, "points": points}


def front_numbers(source: ReportSource) -> list[int]:
    """The trials of the front; none for a search with one objective."""
    if not source.config.objectives:
        return []
    return pareto_front(source.records, metric=source.metric, objectives=source.config.objectives)


def shown_cost(value: float) -> str:
    """A cost for a person: 162,122 parameters, 1.87 ms."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
