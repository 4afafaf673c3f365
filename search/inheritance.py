"""How does a trial go on from another's weights? By a checkpoint of its own, made from the other's."""

from __future__ import annotations

import shutil
from typing import Any

import torch

from search.ledger import TrialRecord
from search.results import RunPaths
from trainables.atomic_files import write_beside
from trainables.checkpoint import TrialFiles, load_checkpoint, save_checkpoint
from trainables.config import TrialConfig
from trainables.errors import CheckpointError
from trainables.trial_state import config_digest


def inherit(record: TrialRecord, paths: RunPaths, *, config: TrialConfig) -> None:
    """Gives a trial with a lineage its parent's checkpoint and best weights, under its own configuration.

    A trial that has a checkpoint, or no lineage, is left as it is. The parent must not have trained on since.

    Raises:
        CheckpointError: if the parent's checkpoint is missing, damaged, or of another epoch.
    """
    lineage = record.lineage
    files = TrialFiles(paths.trial(record.number))
    if lineage is None or files.checkpoint.exists():
        return
    parent = TrialFiles(paths.trial(lineage.parent))
    state = load_checkpoint(parent.checkpoint, device=torch.device("cpu"))
    found = "no checkpoint" if state is None else f"epoch {state['epoch']}"
    if state is None or state["epoch"] != lineage.epoch:
        raise CheckpointError(
            f"{parent.checkpoint}: trial {record.number} goes on from epoch {lineage.epoch} of trial {lineage.parent}, "
            f"found {found}; start a new run, or delete the study's last trial"
        )
    write_beside(files.best_weights, lambda temporary: shutil.copyfile(parent.best_weights, temporary))
    save_checkpoint(files.checkpoint, _under(state, config))  # last: where it is, all is


def _under(state: dict[str, Any], config: TrialConfig) -> dict[str, Any]:
    """A checkpoint's state as a trial of another configuration would have saved it.

    The learning rate is set at every step; decay and momentum stand in the optimizer's groups. Groups whose decay is
    0 are those that are exempt from it.
    """
    for group in state["optimizer"]["param_groups"]:
        if group.get("weight_decay"):
            group["weight_decay"] = config.weight_decay
        if "momentum" in group:
            group["momentum"] = config.momentum
    return {**state, "config_digest": config_digest(config)}
