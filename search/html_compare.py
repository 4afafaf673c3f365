"""How do several runs compare, on one page?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from search.report_comparison import (
    RESULT_COLUMNS,
    best_at,
    comparable,
    differences,
    important_parameters,
    obstacles,
    results,
    verdicts,
)
from search.report_figures import progress
from search.report_html import Html, figure, join, page, section, table, tag
from search.report_source import ReportSource
from search.results import write_text
from trainables.errors import ConfigError
from trainables.metric_names import METRIC_MODES

_SCRIPTS = ("report_charts.js", "report_compare.js")


def write_comparison(path: Path, runs: Sequence[ReportSource]) -> Path:
    """Writes the comparison of runs as one page that needs no other file.

    Raises:
        ConfigError: if the page cannot be written there.
    """
    names = [run.paths.name for run in runs]
    title = " · ".join(names)
    body = join(
        [
            tag("header", tag("h1", title)),
            tag("main", _results(runs), _progress(runs), _settings(runs), _importances(runs)),
            tag("footer", "Written by vistune. This page holds all it shows; nothing is loaded from elsewhere."),
        ]
    )
    shown = {
        "metric": runs[0].metric,
        "better": METRIC_MODES[runs[0].metric],
        "runs": [
            {"name": run.paths.name, "points": progress(run.records, metric=run.metric, times=run.times)}
            for run in (runs if comparable(runs) else ())
        ],
    }
    try:
        write_text(path, page(title=f"{title}: vistune comparison", body=body, data=shown, scripts=_SCRIPTS))
    except OSError as error:
        raise ConfigError(f"--html {path}: cannot be written ({error.strerror}); give another file") from error
    return path


def _results(runs: Sequence[ReportSource]) -> Html:
    careful = obstacles(runs)
    return section(
        "results",
        "Results",
        tag("aside", tag("h3", "Read with care"), tag("ul", *(tag("li", each) for each in careful)))
        if careful
        else None,
        table(RESULT_COLUMNS, results(runs), numeric=(2, 3, 4, 6, 7), caption="Results of the runs"),
        *(tag("p", each) for each in verdicts(runs)),
    )


def _progress(runs: Sequence[ReportSource]) -> Html:
    marks, scores = best_at(runs)
    if not comparable(runs) or not marks:
        return Html("")
    label = f"Best {runs[0].metric} so far of {len(runs)} runs"
    rows = ([run.paths.name, *row] for run, row in zip(runs, scores, strict=True))
    return section(
        "progress",
        "Best so far",
        tag(
            "div",
            figure("so-far", data_by="epochs", label=f"{label}, by epochs", caption="By epochs of all trials."),
            figure("so-far", data_by="time", label=f"{label}, by time",
                   caption="By time since the first trial began; pauses before a resume count."),
            class_="pair",
        ),
        table(["run", *(f"{mark:,} epochs" for mark in marks)], rows, numeric=range(1, len(marks) + 1),
              class_="narrow", caption="Best score after as many epochs"),
        note="A trial counts when it ends.",
    )  # fmt: skip


def _settings(runs: Sequence[ReportSource]) -> Html:
    rows = [[key, *values] for key, values in differences(runs)]
    if not rows:
        return section("settings", "Settings that differ", tag("p", "All settings are the same."))
    header = ["setting", *(run.paths.name for run in runs)]
    return section("settings", "Settings that differ", table(header, rows, caption="Settings that differ"))


def _importances(runs: Sequence[ReportSource]) -> Html:
    rows = [[run.paths.name, important_parameters(run)] for run in runs]
    return section(
        "importance",
        "Parameters that mattered",
        table(["run", "share of the importance"], rows, caption="Parameters that mattered in each run"),
        note="PED-ANOVA; only those that stand out from chance.",
    )
