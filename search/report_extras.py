"""What is shown only where a search has it? Final retrainings, samples of the augmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from search.report_html import Html, image, number, section, table, tag

_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Retraining:
    """A configuration trained again with a seed of its own.

    Attributes:
        val: the search metric on the validation split.
        test: the same on the test split; None where it was not evaluated.
    """

    seed: int
    val: float
    test: float | None = None


@dataclass(frozen=True)
class Retrainings:
    """The final retrainings of one trial.

    Attributes:
        search_score: what the trial scored in the search, and was chosen for.
    """

    trial: int
    search_score: float
    runs: tuple[Retraining, ...]


def retraining_section(retrainings: Sequence[Retrainings], *, metric: str) -> Html:
    """Scores over seeds, and by how much the search's own score was too good."""
    shown = [each for each in retrainings if each.runs]
    rows = []
    for each in shown:
        tests = [run.test for run in each.runs if run.test is not None]
        validated = [run.val for run in each.runs]
        gap = each.search_score - mean(validated)
        seeds = ", ".join(str(run.seed) for run in each.runs)
        rows.append([each.trial, each.search_score, _spread(validated), f"{gap:+.4f}", _spread(tests), seeds])
    if not rows:
        return Html("")
    return section(
        "retrainings",
        "Final retrainings",
        table(
            ["trial", f"{metric} in the search", "validation, retrained", "optimism gap", "test, retrained", "seeds"],
            rows,
            numeric=range(5),
            caption="The best trials, trained again with other seeds",
        ),
        note="Mean and standard deviation over seeds. The optimism gap is the search's score less the mean of the "
        "retrainings: what the winner owes to having been picked. For the test the winner was trained on training and "
        "validation images together, unless its learning rate follows the validation loss.",
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
