"""Runs as searches leave them, without the training: what later searches start from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search.config import SearchConfig, to_yaml
from search.earlier_runs import find_earlier
from search.gathering import gather
from search.knowledge import Knowledge
from search.ledger import Status, TrialRecord
from search.results import RunPaths, write_json
from search.tuner import open_study

FINGERPRINT = "0123456789abcdef"
MACHINE = {"machine": "x86_64", "cpus": 2, "gpus": []}
LR = {"type": "float", "low": 1e-4, "high": 1e-1, "log": True}
ARCH = {"type": "categorical", "values": ["small_cnn", "resnet18", "cnn"]}


def search(space: dict[str, Any], **sections: Any) -> SearchConfig:
    """A search on digits for at most 9 epochs a trial."""
    given = {"task": {"data": {"name": "digits"}}, "scheduler": {"max_epochs": 9}, "budget": {"trials": 10}}
    return SearchConfig.model_validate({**given, "space": space, **sections})


def stored(
    root: Path,
    config: SearchConfig,
    trials: Sequence[tuple[dict[str, Any], Sequence[float], Status]],
    *,
    fingerprint: str = FINGERPRINT,
    objectives: Sequence[dict[str, float]] = (),
) -> RunPaths:
    """The folder of a run whose trials had these parameters, curves and ends."""
    paths = RunPaths(root)
    paths.root.mkdir(parents=True)
    paths.config.write_text(to_yaml(config), encoding="utf-8")
    data = {"fingerprint": fingerprint, "train": 600, "val": 200, "test": 200, "classes": ["a", "b"]}
    write_json(paths.environment, {"data": data, "hardware": MACHINE})
    store = open_study(config, paths)
    for index, (params, curve, status) in enumerate(trials):
        costs = objectives[index] if objectives else {}
        store.study.enqueue_trial(params)
        trial = store.study.ask()
        config.search_space.suggest(trial)
        if costs:
            store.measured(trial.number, costs)
        for epoch, value in enumerate(curve, start=1):
            store.add_epoch(trial.number, epoch=epoch, value=value)
        if status is not Status.RUNNING:
            failure = {"cause": "DivergedError", "message": "NaN"} if status is Status.FAILED else {}
            record = TrialRecord(
                number=trial.number,
                params=params,
                status=status,
                curve=dict(enumerate(curve, start=1)),
                score=max(curve, default=None),
                train_s=3.0,
                objectives=costs,
                **failure,
            )
            store.finish(record)
    return paths


def known_to(config: SearchConfig, *, fingerprint: str | None = FINGERPRINT) -> Knowledge:
    """What a search gathers of its earlier runs, on images of that fingerprint and on that machine."""
    return gather(config, find_earlier(config), fingerprint=fingerprint, hardware=MACHINE)


def lines(knowledge: Knowledge) -> list[str]:
    """All that is said."""
    return [line for run in knowledge.runs for line in run.lines]
