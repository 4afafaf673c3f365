"""Which parts of a valid search are probably not what a person means? Warnings; nothing here stops a search."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator

from search.config import SearchConfig
from search.domains import CategoricalDomain, Domain
from search.forbid import forbidden_by, in_words
from search.pipeline_params import pipeline_params
from search.rungs import rung_epochs
from search.space import Space

_DRAWS = 1_000
# A parameter that fewer trials than this share have is hardly searched.
_RARE = 0.02
# Of proposals more than this share forbidden, most are drawn in vain.
_MOSTLY = 0.8
# Decades of a logarithmic range beyond which one end is probably a slip.
_DECADES = 9
# Samplers that begin with random trials.
_LEARN = ("curve_gp", "forest", "tpe", "gp", "cmaes")


def lint(config: SearchConfig) -> list[str]:
    """Sentences of the form *where: what looks wrong, what was found; what to do*; the worst mistakes are refused.

    What can never be is an error when the file is read: domains without values, logarithmic ranges that touch 0,
    parameters that no trial can have, combinations of impossible values, sections that forbid everything.
    """
    space = config.search_space
    return [
        *_pipelines(config),
        *_draws(config, space),
        *_ranges(space),
        *_rungs(config, space),
        *_budget(config, space),
    ]


def _pipelines(config: SearchConfig) -> Iterator[str]:
    augment = config.space.get("augment", "none")
    named = augment.values if isinstance(augment, CategoricalDomain) else (augment,)
    for pipeline in config.augmentations:
        if pipeline not in named:
            lost = [each.name for each in pipeline_params(config.augmentations) if each.pipeline == pipeline]
            also = f", so that {', '.join(lost)} is not searched" if lost else ""
            yield (
                f"augmentations.{pipeline}: no value of space.augment names it{also}; "
                f"add {pipeline} to space.augment, or remove the pipeline"
            )


def _draws(config: SearchConfig, space: Space) -> Iterator[str]:
    """What random trials show: parameters that hardly occur, and combinations that are forbidden too often or never."""
    rng = random.Random(0)
    trials = [space.draw(rng) for _ in range(_DRAWS)]
    allowed = [params for params in trials if space.forbidden(params) is None]
    counts = Counter(name for params in allowed for name in params)
    for name in space.searched:
        share = counts[name] / max(1, len(allowed))
        if share < _RARE:
            yield (
                f"{_where(name)}: few trials have it, found {share:.1%} of {_DRAWS} drawn at random; "
                "widen the conditions that it depends on, or remove it"
            )
    for index, combination in enumerate(config.forbid):
        if not any(forbidden_by(params, [combination]) for params in trials):
            yield (
                f"forbid.{index}: met by none of {_DRAWS} trials drawn at random, found {in_words(combination)}; "
                "check its values, or remove it"
            )
    forbidden = 1 - len(allowed) / _DRAWS
    if forbidden > _MOSTLY:
        yield (
            f"forbid: most trials are forbidden, found {forbidden:.0%} of {_DRAWS} drawn at random; "
            "narrow the domains, or give the parameters a `when`"
        )


def _ranges(space: Space) -> Iterator[str]:
    for name, domain in space.domains.items():
        if isinstance(domain, CategoricalDomain) or not domain.log:
            continue
        decades = math.log10(domain.high / domain.low)
        if decades > _DECADES:
            yield (
                f"{_where(name)}.low: the range spans {decades:.0f} powers of ten, found {domain.low:g} to "
                f"{domain.high:g}; raise low towards the values that make a difference"
            )


def _where(name: str) -> str:
    return name if "." in name else f"space.{name}"


def _rungs(config: SearchConfig, space: Space) -> Iterator[str]:
    """Rungs that fewer than one trial is expected to reach, and a scheduler without rungs."""
    scheduler, trials = config.scheduler, config.budget.trials or space.num_combinations
    if scheduler.name != "asha":
        return
    if scheduler.grace_period >= scheduler.max_epochs:
        yield (
            f"scheduler.grace_period: no trial is ever stopped early, found {scheduler.grace_period} of "
            f"{scheduler.max_epochs} epochs; lower it, or write name: none"
        )
        return
    if trials is None:
        return
    epochs = rung_epochs(
        grace_period=scheduler.grace_period,
        reduction_factor=scheduler.reduction_factor,
        max_epochs=scheduler.max_epochs,
    )
    for level, epoch in enumerate(epochs):
        expected = trials / scheduler.reduction_factor**level
        if expected < 1:
            yield (
                f"scheduler: fewer than one of {trials} trials is expected at the rung of {epoch} epochs, found "
                f"{expected:.2g} with reduction_factor {scheduler.reduction_factor}; set budget.trials to "
                f"{scheduler.reduction_factor**level} or more, or raise grace_period or lower max_epochs"
            )
            return


def _budget(config: SearchConfig, space: Space) -> Iterator[str]:
    trials, combinations = config.budget.trials, space.num_combinations
    if trials is not None and combinations is not None and trials > combinations:
        yield (
            f"budget.trials: the search ends after all {combinations} combinations, found {trials}; "
            "give domains more values, or lower trials"
        )
    startup = config.sampler.startup_trials
    if config.sampler.name in _LEARN and trials is not None and startup >= trials:
        yield (
            f"sampler.startup_trials: {config.sampler.name} never begins to learn, found {startup} random trials of "
            f"{trials}; lower it to {max(1, trials // 4)}, or raise budget.trials"
        )
    if any(isinstance(param, Domain) and param.prior is not None for param in config.space.values()) and startup == 0:
        yield (
            "sampler.startup_trials: only the priors themselves are tried, none near them, found 0; "
            "set startup_trials: 10"
        )
