"""What is shown only where a search has it? Final retrainings, samples of the augmentation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from search.report_html import Html, image, number, section, table, tag
from trainables.metric_names import METRIC_MODES

_PNG = b"\x89PNG\r\n\x1a\n"


def retraining_section(final: Mapping[str, Any], *, metric: str) -> Html:
    """Scores over seeds, and by how much the search's own score was too good.

    Args:
        final: as `search.final_summary.FinalSummary` is kept in `summary.json`; empty where nothing was trained again.
        metric: of the search.
    """
    sign = 1.0 if METRIC_MODES[metric] == "max" else -1.0
    rows = []
    for candidate in final.get("candidates", ()):
        if not candidate["scores"]:
            continue
        tests = final["tests"] if candidate["trial"] == final["winner"] else []
        gap = sign * (candidate["search_score"] - mean(candidate["scores"]))
        seeds = ", ".join(map(str, candidate["seeds"]))
        scores = (_spread(candidate["scores"]), f"{gap:+.4f}", _spread(tests))
        rows.append([candidate["trial"], candidate["search_score"], *scores, seeds])
    if not rows:
        return Html("")
    epochs = final.get("refit_epochs")
    tested = (
        "What was tested are these models, trained on the training images alone."
        if epochs is None
        else f"For the test the winner was trained on training and validation images together, for {epochs} epochs."
    )
    return section(
        "retrainings",
        "Final retrainings",
        table(
            ["trial", f"{metric} in the search", "validation, retrained", "selection gap", "test, retrained", "seeds"],
            rows,
            numeric=range(5),
            caption="The best trials, trained again with other seeds",
        ),
        note="Mean and standard deviation over seeds. The selection gap is by how much the search's score is better "
        f"than the mean of the retrainings: what the trial owes to having been picked. {tested}",
    )


def augmentation_section(path: Path) -> Html:
    """The picture of augmented images, where the run has one."""
    if not path.is_file():
        return Html("")
    content = path.read_bytes()
    if not content.startswith(_PNG):
        return Html("")
    return section(
        "augmentation",
        "Augmented images",
        tag("p", image(png=content, alt="Training images as the augmentations vary them", class_="wide")),
    )


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    deviation = stdev(values) if len(values) > 1 else math.nan
    return number(mean(values)) + ("" if math.isnan(deviation) else f" ± {number(deviation)}")
