"""How is the winner trained once more? `reproduce.yaml`, a space file in which nothing is left to search."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from search.algorithm_config import SamplerConfig
from search.budget_config import BudgetConfig, FinalConfig, KeepConfig
from search.config import SearchConfig, to_yaml
from search.config_types import slug
from search.ledger import TrialRecord
from search.results import RunPaths, write_text
from trainables.conditions import has_effect
from trainables.hyperparameters import Hyperparameters

_log = logging.getLogger(__name__)


def write_reproduction(config: SearchConfig, paths: RunPaths, winner: TrialRecord) -> None:
    """Writes the winner's space file, unless its weights are another trial's (population based training)."""
    if winner.lineage is not None:
        _log.warning("trial %s goes on from another's weights: no %s", winner.number, paths.reproduce.name)
        return
    text = to_yaml(reproduction(config, winner, name=slug(f"{paths.name}-winner")))
    write_text(paths.reproduce, _head(config, paths, winner) + text)


def reproduction(config: SearchConfig, winner: TrialRecord, *, name: str) -> SearchConfig:
    """The search whose only trial trains what the winner trained: same values, seeds, split, threads and schedule."""
    trial = config.trial_config(winner.params)
    pipelines = {pipeline: list(steps) for pipeline, steps in trial.augmentations.items() if pipeline == trial.augment}
    return SearchConfig.model_validate(
        {
            **config.model_dump(),
            "name": name,
            "space": _values(trial.model_dump(), asked={*config.space, *winner.params}),
            "augmentations": pipelines,
            "sampler": SamplerConfig(name="random", seed=config.sampler.seed).model_dump(),
            "scheduler": {**config.scheduler.model_dump(), "name": "none"},
            "budget": BudgetConfig(trials=1).model_dump(),
            "keep": KeepConfig().model_dump(),
            # With as many retrainings, of the same seeds: so it comes to the very model that was delivered.
            "final": FinalConfig(top_k=1, seeds=config.final.seeds).model_dump(),
            "resources": {**config.resources.model_dump(), "workers": config.workers_of(winner.params)},
            "forbid": (),
            "start_from": (),
            "limits": {},
            "tags": (*config.tags, "reproduction"),
        }
    )


def _values(trial: Mapping[str, Any], *, asked: set[str]) -> dict[str, Any]:
    """The hyperparameters of a trial that were written or searched, as they were trained with; and that matter."""
    own = {name: trial[name] for name in Hyperparameters.model_fields}
    return {name: value for name, value in own.items() if name in asked and has_effect(name, own)}


def _head(config: SearchConfig, paths: RunPaths, winner: TrialRecord) -> str:
    score = f"{config.metric} {winner.score:.6g} at epoch {winner.best_epoch}"
    again = [f"Its {config.final.seeds} final retrainings follow, with their seeds."] if config.final.seeds else []
    lines = (
        f"python -m search.run {paths.reproduce.name}",
        "",
        f"Trains trial {winner.number} of the search {paths.name} again, its winner: {score}.",
        "With the same packages on the same hardware (environment.json) every epoch is the same, on a CPU bit for bit.",
        f"The search trained {winner.epochs} of {config.scheduler.max_epochs} epochs of it; this trains all of them.",
        *again,
    )
    return "".join(f"# {line}".rstrip() + "\n" for line in lines) + "\n"
