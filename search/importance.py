"""Which parameters decided about the score? PED-ANOVA over the trials of a search, beside what chance would show."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search.domains import Domain, FloatDomain, IntDomain
from search.ledger import Status, TrialRecord
from search.pipeline_params import PREFIX
from trainables.metric_names import METRIC_MODES

# The best tenth is what PED-ANOVA explains, and its authors ask for five trials in it; below this number there is no
# "best part" that could be told from the rest.
MIN_TRIALS = 20
_MIN_TARGET_TRIALS = 5

# Orders of the scores by chance: one that is no better than chance beats all of them in one case of twenty.
_NUM_SHUFFLES = 19

# Parts of a trial, as a person thinks of them; what is searched in an augmentation pipeline is augmentation too.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "architecture": (
        "arch", "pretrained", "weights", "input_size", "cnn_stages", "cnn_depth", "cnn_width", "cnn_kernel",
        "cnn_norm", "cnn_activation", "finetune", "finetune_stages", "unfreeze_epochs",
    ),
    "optimisation": (
        "batch_size", "optimizer", "lr", "momentum", "layer_decay", "lr_schedule", "warmup_epochs", "step_epochs",
        "lr_drop", "plateau_patience", "grad_clip_norm", "precision", "channels_last", "compile", "loss",
        "focal_gamma", "class_weights", "effective_beta", "sampling",
    ),
    "regularisation": ("dropout", "drop_path", "weight_decay", "label_smoothing", "ema_decay", "patience"),
    "augmentation": (
        "augment", "crop", "crop_padding", "crop_scale", "hflip", "vflip", "rotation", "color_jitter", "erasing",
        "randaugment_num_ops", "randaugment_magnitude", "augmix_severity", "augmix_width", "mixup_alpha",
        "cutmix_alpha", "mix_prob",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Importance:
    """One parameter.

    Attributes:
        share: of the importances of all parameters, in [0, 1].
        noise: the largest importance it has in nineteen shuffles of the scores, as such a share; may exceed 1. A
            parameter without influence comes above it in one case of twenty.
        group: a key of `GROUPS`, or other.
        num_trials: trials that had the parameter.
    """

    name: str
    share: float
    noise: float
    group: str
    num_trials: int


def parameter_importances(
    records: Sequence[TrialRecord], *, domains: Mapping[str, Domain], metric: str, seed: int = 0
) -> tuple[Importance, ...]:
    """How much each parameter decided whether a trial is among the best, the most important first.

    Over trials that ended by themselves or were stopped early. A stopped trial has a lower score than it would have
    reached; the method asks only which trials are among the best, where it would hardly have been. A parameter that
    exists in some trials only is judged over these, and weighted by how often it is there.

    Args:
        domains: of the searched parameters, as in `Space.domains`.
        seed: of the shuffles.

    Returns:
        Nothing where `importance_problem` says why.

    Source: PED-ANOVA, arXiv:2304.10255; with conditional parameters, arXiv:2601.20800.
    """
    used = _usable(records)
    if importance_problem(records, domains=domains) is not None:
        return ()
    with _quiet():
        # PED-ANOVA takes the lowest values of a target for the best.
        sign = -1.0 if METRIC_MODES[metric] == "max" else 1.0
        losses = [sign * (record.score or 0.0) for record in used]
        study = _study(used, losses, domains=domains)
        raw = _evaluate(study, losses)
        rng = random.Random(seed)
        shuffled = [_evaluate(study, rng.sample(losses, len(losses))) for _ in range(_NUM_SHUFFLES)]
    total = sum(raw.values()) or 1.0
    found = (
        Importance(
            name=name,
            share=value / total,
            noise=max(each.get(name, 0.0) for each in shuffled) / total,
            group=group_of(name),
            num_trials=sum(name in record.params for record in used),
        )
        for name, value in raw.items()
    )
    return tuple(sorted(found, key=lambda each: -each.share))


def importance_problem(records: Sequence[TrialRecord], *, domains: Mapping[str, Domain]) -> str | None:
    """Why no importances can be told, in a sentence; None where they can."""
    used = _usable(records)
    varied = {name for name in domains if len({record.params[name] for record in used if name in record.params}) > 1}
    if len(used) < MIN_TRIALS:
        return (
            f"Only {len(used)} of the {MIN_TRIALS} trials with a score that importances need: fewer would show noise. "
            "Give the search more trials."
        )
    if len({record.score for record in used}) == 1:
        return "All trials have the same score: nothing tells their parameters apart."
    return None if len(varied) > 1 else "Fewer than two parameters varied, so there is nothing to compare."


def group_shares(importances: Sequence[Importance]) -> dict[str, float]:
    """Importance of each group, the sum over its parameters, the most important first."""
    groups = {each.group for each in importances}
    shares = {group: sum(each.share for each in importances if each.group == group) for group in groups}
    return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))


def group_of(name: str) -> str:
    """The key of `GROUPS` that a parameter belongs to; other where none does."""
    if name.startswith(PREFIX):
        return "augmentation"
    return next((group for group, names in GROUPS.items() if name in names), "other")


def _usable(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Not those that the budget cut off: when they did says nothing about their parameters."""
    ended = (Status.COMPLETED, Status.STOPPED, Status.PAUSED)
    return [record for record in records if record.status in ended and record.score is not None]


def _study(records: Sequence[TrialRecord], losses: Sequence[float], *, domains: Mapping[str, Domain]) -> optuna.Study:
    """The trials as complete ones of a study in memory."""
    distributions = {name: _distribution(domain) for name, domain in domains.items()}
    study = optuna.create_study()
    study.add_trials(
        [
            optuna.create_trial(
                value=loss,
                params={name: value for name, value in record.params.items() if name in domains},
                distributions={name: distributions[name] for name in record.params if name in domains},
            )
            for record, loss in zip(records, losses, strict=True)
        ]
    )
    return study


def _evaluate(study: optuna.Study, losses: Sequence[float]) -> dict[str, float]:
    """Importance of every parameter, without a unit, had the trials these losses."""
    # Brings scikit-learn, for which no first trial should wait.
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    quantile = max(0.1, _MIN_TARGET_TRIALS / len(losses))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=quantile)
    return get_param_importances(study, evaluator=evaluator, target=lambda trial: losses[trial.number], normalize=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's line on the new study, and its warnings about parameters that few trials have."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _distribution(domain: Domain) -> BaseDistribution:
    if isinstance(domain, FloatDomain):
        return FloatDistribution(domain.low, domain.high, log=domain.log, step=domain.step)
    if isinstance(domain, IntDomain):
        return IntDistribution(domain.low, domain.high, log=domain.log, step=domain.step or 1)
    return CategoricalDistribution(domain.values)
