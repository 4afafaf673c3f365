"""What did the search find? As two files, a table and a summary; nothing here decides anything."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from search.config import SearchConfig
from search.final_summary import FinalSummary
from search.ledger import Status, TrialRecord, pareto_front, rank
from search.results import RunPaths, write_json, write_text


def write_leaderboard(path: Path, records: list[TrialRecord], *, config: SearchConfig) -> None:
    """A row a trial, from best to worst; failed ones last, with their cause."""
    metric, objectives, searched = config.metric, config.objectives, config.search_space.searched
    front = set(pareto_front(records, metric=metric, objectives=objectives)) if objectives else set()
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ["rank", "trial", "status", metric, "val_loss", "best_epoch", "epochs", "train_s", "images_per_s"]
    writer.writerow([*columns, *objectives, *(["pareto"] if objectives else []), *searched, "cause", "message"])
    for place, record in enumerate(rank(records, metric=metric), start=1):
        ranked = record.is_usable
        writer.writerow(
            [
                place if ranked else "",
                record.number,
                record.status.value,
                _cell(record.score),
                _cell(record.val_loss),
                _cell(record.best_epoch),
                record.epochs,
                f"{record.train_s:.3f}",
                "" if record.images_per_s is None else f"{record.images_per_s:.0f}",
                *(_cell(record.objectives.get(name)) for name in objectives),
                *(["yes" if record.number in front else "no"] if objectives else []),
                *(_cell(record.params.get(name)) for name in searched),
                record.cause or "",
                record.message or "",
            ]
        )
    write_text(path, text.getvalue())


def write_summary(
    paths: RunPaths,
    config: SearchConfig,
    records: list[TrialRecord],
    *,
    state: str,
    reason: str | None,
    elapsed_s: float,
    test: dict[str, Any] | None,
    final: FinalSummary | None = None,
    refused: Mapping[str, int] | None = None,
) -> None:
    """The run in one JSON file.

    Args:
        state: finished, interrupted or failed.
        reason: why it ended before its trials were used up, where it did.
        test: the winner's test metrics; None where there is no winner yet.
        final: what the best trials reached when trained again; None where they were not.
        refused: how many proposals exceeded each of the limits, and were not run.
    """
    ranked = rank(records, metric=config.metric)
    best = ranked[0] if ranked and ranked[0].is_usable else None
    counts = Counter(record.status for record in records)
    write_json(
        paths.summary,
        {
            "run": paths.name,
            "state": state,
            "ended_because": reason,
            "trials": {status.value: counts[status] for status in Status},
            "refused": dict(refused or {}),
            "restarts": {
                "after_a_lost_worker": sum(record.restarts.lost for record in records),
                "after_a_preemption": sum(record.restarts.preempted for record in records),
            },
            "epochs": sum(record.trained_epochs for record in records),
            "elapsed_s": round(elapsed_s, 1),
            "train_s": round(sum(record.train_s for record in records), 1),
            "best": None
            if best is None
            else {
                "trial": best.number,
                "status": best.status.value,
                config.metric: best.score,
                "val_loss": best.val_loss,
                "epoch": best.best_epoch,
                "params": dict(best.params),
            },
            **_front(config, ranked),
            "test": test,
            "final": None if final is None else final.as_dict(),
            "failures": [
                {"trial": record.number, "cause": record.cause, "message": record.message}
                for record in records
                if record.status is Status.FAILED
            ],
        },
    )


def _front(config: SearchConfig, ranked: list[TrialRecord]) -> dict[str, Any]:
    """The Pareto front, best score first; nothing for a search with one objective."""
    if not config.objectives:
        return {}
    front = set(pareto_front(ranked, metric=config.metric, objectives=config.objectives))
    return {
        "pareto": [
            {"trial": record.number, "status": record.status.value, config.metric: record.score, **record.objectives}
            for record in ranked
            if record.number in front
        ]
    }


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value
