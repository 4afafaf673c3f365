"""Was the winner lucky? The best trials are trained again with other seeds, and the winner on all images but the test.

Stage 1: each candidate is trained anew on the training split with seeds of its own; the mean of their validation scores
picks the winner. A search picks the luckiest of many, whose score is therefore optimistic; these scores are not.

Stage 2: the winner is trained on training and validation images together, with the same seeds. Nothing is left to pick
an epoch by, so it ends after as many epochs as were best in stage 1 on average, on the same learning-rate schedule.

What has been trained is kept in `final/`, and is not repeated after an interruption.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean

from search.config import SearchConfig
from search.halt import Halt
from search.ledger import TrialRecord, rank
from search.results import RunPaths
from search.retrain_runner import Retrained, Runner
from trainables.metric_names import METRIC_MODES


@dataclass(frozen=True)
class Final:
    """What the retrainings found.

    Attributes:
        stage1: all that succeeded, by candidate in the order of the search's ranking.
        models: of the winner, those that the test is for; the first is the one that is exported.
        failures: what failed, in words.
    """

    winner: TrialRecord
    stage1: tuple[Retrained, ...]
    models: tuple[Retrained, ...]
    refit_epochs: int | None
    failures: tuple[str, ...]

    def scores(self, trial: int) -> list[float]:
        """Validation scores of a candidate in stage 1."""
        return [each.score for each in self.stage1 if each.trial == trial and each.score is not None]


def retrain_best(
    config: SearchConfig,
    paths: RunPaths,
    records: Sequence[TrialRecord],
    *,
    halt: Halt,
    note: Callable[[str], None],
) -> Final | None:
    """Both stages, on the resources of the trials.

    Args:
        note: is told how far it has come.

    Returns:
        None where no candidate could be trained again.

    Raises:
        Interrupted: when `halt` is; what was finished by then stays.
    """
    metric = config.metric
    usable = [record for record in records if record.is_usable]
    candidates = rank(usable, metric=metric)[: config.final.top_k]
    seeds = [config.sampler.seed + 1 + index for index in range(config.final.seeds)]
    runner = Runner(config, paths, halt=halt, note=note)
    asked = {
        (record.number, seed): config.trial_config(record.params).model_copy(update={"seed": seed})
        for record in candidates
        for seed in seeds
    }
    stage1 = runner.train(asked, title="training the best trials again")
    winner = _winner(candidates, stage1, metric=metric)
    if winner is None:
        return None
    own = [each for each in stage1 if each.trial == winner.number]
    trial = config.trial_config(winner.params)
    models, refit_epochs = own, None
    if trial.lr_schedule != "plateau":  # which follows the validation loss
        refit_epochs = max(1, round(mean(each.best_epoch for each in own)))
        update = {"refit_epochs": refit_epochs}
        refits = {(winner.number, seed): trial.model_copy(update={"seed": seed, **update}) for seed in seeds}
        models = runner.train(refits, title="training the winner on all images but the test") or own
    return Final(
        winner=winner,
        stage1=tuple(stage1),
        models=tuple(models),
        refit_epochs=refit_epochs if models is not own else None,
        failures=tuple(runner.failures),
    )


def _winner(candidates: Sequence[TrialRecord], stage1: Sequence[Retrained], *, metric: str) -> TrialRecord | None:
    """The candidate with the best mean; of equal ones that which the search ranked first."""
    sign = 1.0 if METRIC_MODES[metric] == "max" else -1.0
    means = {
        record.number: mean(scores)
        for record in candidates
        if (scores := [each.score for each in stage1 if each.trial == record.number and each.score is not None])
    }
    tried = [record for record in candidates if record.number in means]
    return max(tried, key=lambda record: sign * means[record.number], default=None)
