"""What did the search find? One page for a person that needs neither a server nor the network."""

from __future__ import annotations

from pathlib import Path

from search.importance import parameter_importances
from search.ledger import Status
from search.rank_correlation import rung_correlations
from search.report_extras import augmentation_section, retraining_section
from search.report_figures import chart_data, curves_section, history_section, parameters_section
from search.report_html import Html, duration, join, number, page, section, tag
from search.report_pareto import pareto_data, pareto_section
from search.report_sections import (
    failure_section,
    importance_section,
    leaderboard_section,
    rung_section,
    settings_section,
    time_section,
)
from search.report_source import ReportSource
from search.report_story import cautions, fates, story, test_metric
from search.report_test_split import test_sections
from search.results import write_text
from trainables.data import ImageData, load_data
from trainables.errors import VistuneError

_SCRIPTS = ("report_charts.js", "report_params.js", "report_run.js")

_CHAPTERS = {
    "history": "history",
    "curves": "curves",
    "importance": "importances",
    "parameters": "parameters",
    "pareto": "Pareto",
    "rungs": "early stopping",
    "time": "time",
    "failures": "failures",
    "test": "test",
    "confusion": "confusion",
    "classes": "classes",
    "mistakes": "mistakes",
    "retrainings": "retrainings",
    "augmentation": "augmentation",
    "leaderboard": "trials",
    "settings": "settings",
}


def write_html_report(source: ReportSource, *, data: ImageData | None = None) -> Path:
    """Writes a run's `report.html`, whatever state the run is in; what is not there yet is left out.

    Args:
        data: the run's images, for pictures of mistakes; loaded again by default where there are mistakes to show.

    Returns:
        The page's path.
    """
    paths = source.paths
    if data is None and (paths.test / "predictions.csv").is_file():
        data = _images(source)
    write_text(paths.report, _render(source, data=data))
    return paths.report


def _render(source: ReportSource, *, data: ImageData | None) -> str:
    records, metric = source.records, source.metric
    correlations = rung_correlations(records, metric=metric, rungs=source.rungs)
    importances = parameter_importances(records, domains=source.domains, metric=metric)
    chapters = join(
        [
            history_section(source),
            curves_section(source),
            importance_section(source, importances),
            parameters_section(source),
            pareto_section(source),
            rung_section(source, correlations),
            time_section(source),
            failure_section(records),
            test_sections(source, data=data),
            retraining_section(source.final, metric=metric),
            augmentation_section(source.paths.root / "augmentation.png"),
            leaderboard_section(source),
            settings_section(source),
        ]
    )
    warnings = cautions(source, correlations)
    body = join(
        [
            tag("header", tag("h1", source.paths.name), _links(chapters)),
            tag(
                "main",
                section(
                    "story",
                    "What was found",
                    tag("p", story(source), class_="story"),
                    _tiles(source),
                    tag("aside", tag("h3", "Read with care"), tag("ul", *(tag("li", each) for each in warnings)))
                    if warnings
                    else None,
                ),
                chapters,
            ),
            tag("footer", "Written by vistune. This page holds all it shows; nothing is loaded from elsewhere."),
        ]
    )
    shown = {**chart_data(source), "pareto": pareto_data(source)}
    return page(title=f"{source.paths.name}: vistune report", body=body, data=shown, scripts=_SCRIPTS)


def _links(chapters: Html) -> Html:
    """Links to those chapters that there are."""
    there = [(anchor, name) for anchor, name in _CHAPTERS.items() if f'<section id="{anchor}"' in chapters]
    return tag("nav", *(tag("a", name, href=f"#{anchor}") for anchor, name in there), aria_label="Chapters")


def _tiles(source: ReportSource) -> Html:
    """The run in a few large numbers."""
    tested, winner, fate = test_metric(source), source.winner, fates(source)
    elapsed = source.summary.get("elapsed_s")
    tiles: list[tuple[str, str, str]] = [("state", source.state, "")]
    if winner is not None:
        tiles.append((f"best {source.metric}", number(winner.score), f"trial {winner.number}"))
    if tested is not None and source.test is not None:
        low, high = source.test["interval95"]
        tiles.append((f"test {tested[0]}", number(tested[1]), f"95 % interval {low:.4f} to {high:.4f}"))
    failed = f", {fate[Status.FAILED]} failed" if fate[Status.FAILED] else ""
    tiles.append(("trials", f"{len(source.records):,}", f"{fate[Status.COMPLETED]} to the end{failed}"))
    tiles.append(("epochs", f"{sum(record.trained_epochs for record in source.records):,}", "over all trials"))
    if elapsed:
        tiles.append(("time", duration(elapsed), "from the first trial to the last"))
    return tag(
        "div",
        *(
            tag("div", tag("span", name), tag("strong", value), tag("small", note) if note else None, class_="tile")
            for name, value, note in tiles
        ),
        class_="tiles",
    )


def _images(source: ReportSource) -> ImageData | None:
    """The images that the run was about; None where they are gone or have changed since."""
    try:
        data = load_data(source.config.task.data)
    except (VistuneError, OSError):
        return None
    before = source.environment.get("data", {}).get("fingerprint")
    return data if before in (None, data.fingerprint) else None
