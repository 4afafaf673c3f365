"""What is shown only where a search has it? Pareto fronts, final retrainings, samples of the augmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from search.report_html import Html, figure, image, number, section, table, tag

_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class ParetoPoint:
    """One trial under two objectives.

    Attributes:
        on_front: whether no other trial is better in one objective and no worse in the other.
    """

    trial: int
    values: tuple[float, float]
    on_front: bool


@dataclass(frozen=True)
class ParetoFront:
    """The trials of a search for two objectives, named in the order of the values."""

    objectives: tuple[str, str]
    points: tuple[ParetoPoint, ...]


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


def pareto_section(front: ParetoFront | None) -> Html:
    """The trials under both objectives, and a table of the front."""
    if front is None or not front.points:
        return Html("")
    best = sorted((point for point in front.points if point.on_front), key=lambda point: point.values)
    first, second = front.objectives
    return section(
        "pareto",
        "Pareto front",
        figure("pareto", label=f"{first} against {second} of {len(front.points)} trials"),
        table(
            ["trial", first, second],
            ([point.trial, *point.values] for point in best),
            numeric=(0, 1, 2),
            class_="narrow",
            caption="Trials on the Pareto front",
        ),
        note=f"Trials that no other beats in both {first} and {second} are joined by the line.",
    )


def pareto_data(front: ParetoFront | None) -> dict[str, Any] | None:
    """The same for the page's script."""
    if front is None:
        return None
    points = [{"n": each.trial, "v": list(each.values), "front": each.on_front} for each in front.points]
    return {"objectives": list(front.objectives), "points": points}


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
