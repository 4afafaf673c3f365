"""What did the final retrainings show? Means, intervals, and by how much the search's own score was too good."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any

from search.final import mean_interval
from search.ledger import TrialRecord
from trainables.metric_names import METRIC_MODES

if TYPE_CHECKING:
    from search.retrain import Final


@dataclass(frozen=True)
class Candidate:
    """One of the best trials, trained again on the training split.

    Attributes:
        scores: the best validation value with each of the seeds.
    """

    trial: int
    search_score: float
    seeds: tuple[int, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class FinalSummary:
    """The retrainings in figures.

    Attributes:
        metric: the search's metric, without `val_`: also that of the test figures.
        refit_epochs: epochs of the winner on training and validation images together; None where the models that were
            tested are those of the training split alone.
        tests: the metric on the test split with each of `test_seeds`.
        test_interval: mean over seeds and its 95 % interval; None for one seed.
        optimism_gap: the search's score less the mean on the test split, or the reverse for losses: positive where
            the search promised too much.
        selection_gap: the same against the mean of the winner's validation scores: what is owed to having been picked.
    """

    winner: int
    metric: str
    candidates: tuple[Candidate, ...]
    refit_epochs: int | None
    test_seeds: tuple[int, ...]
    tests: tuple[float, ...]
    test_interval: tuple[float, float, float] | None
    optimism_gap: float
    selection_gap: float
    failures: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For `summary.json`."""
        return asdict(self)


def summarise(final: Final, records: Sequence[TrialRecord], test: Mapping[str, Any], *, metric: str) -> FinalSummary:
    """The figures of the retrainings.

    Args:
        records: of the search.
        test: as `evaluate_winner` returned it.
    """
    searched = {record.number: record.score for record in records if record.score is not None}
    candidates = tuple(
        Candidate(
            trial=trial,
            search_score=searched[trial],
            seeds=tuple(each.seed for each in final.stage1 if each.trial == trial),
            scores=tuple(final.scores(trial)),
        )
        for trial in dict.fromkeys(each.trial for each in final.stage1)
    )
    name = metric.removeprefix("val_")
    tests = tuple(float(each[name]) for each in test["retrained"])
    promised = searched[final.winner.number]
    sign = 1.0 if METRIC_MODES[metric] == "max" else -1.0
    return FinalSummary(
        winner=final.winner.number,
        metric=name,
        candidates=candidates,
        # Of the models that were tested: a later session may have trained others, and opens the test no second time.
        refit_epochs=test.get("refit_epochs", final.refit_epochs),
        test_seeds=tuple(test.get("seeds", (each.seed for each in final.models))),
        tests=tests,
        test_interval=mean_interval(tests, most=math.inf if name == "loss" else 1.0),
        optimism_gap=sign * (promised - mean(tests)),
        selection_gap=sign * (promised - mean(final.scores(final.winner.number))),
        failures=final.failures,
    )
