"""How does a trial go on from another's weights? By a checkpoint of its own, made from the other's."""

from __future__ import annotations

import logging
import shutil
from typing import Any

import torch

from search.ledger import TrialRecord
from search.results import RunPaths
from trainables.atomic_files import write_beside
from trainables.checkpoint import TrialFiles, newest_checkpoint, save_checkpoint
from trainables.config import TrialConfig
from trainables.errors import CheckpointError
from trainables.trial_state import config_digest

_log = logging.getLogger(__name__)


def inherit(record: TrialRecord, paths: RunPaths, *, config: TrialConfig) -> None:
    """Gives a trial with a lineage its parent's checkpoint and best weights, under its own configuration.

    A trial that has a checkpoint, or no lineage, is left as it is. The parent must not have trained on since. Where its
    last checkpoint is damaged, the one before is taken, and the trial trains the epoch in between itself.

    Raises:
        CheckpointError: if the parent's checkpoints are missing, both damaged, or of other epochs.
    """
    lineage = record.lineage
    files = TrialFiles(paths.trial(record.number))
    if lineage is None:
        return
    files.fetch()
    if any(path.exists() for path in files.checkpoints):
        return
    parent = TrialFiles(paths.trial(lineage.parent))
    parent.fetch()
    state, damaged = newest_checkpoint(parent, device=torch.device("cpu"))
    if damaged and state is not None:  # it is of the epoch before, from which the heir trains one more
        told = (record.number, state["epoch"], lineage.parent, "; ".join(damaged))
        _log.warning("trial %d goes on from epoch %d of trial %d: %s", *told)
    found = "no checkpoint" if state is None else f"epoch {state['epoch']}"
    if state is None or not lineage.epoch - len(damaged) <= state["epoch"] <= lineage.epoch:
        raise CheckpointError(
            f"{parent.checkpoint}: trial {record.number} goes on from epoch {lineage.epoch} of trial {lineage.parent}, "
            f"found {found}; start a new run, or delete the study's last trial"
        )
    write_beside(files.best_weights, lambda temporary: shutil.copyfile(parent.best_weights, temporary))
    # Last: where it is, all is. Twice: this trial cannot begin anew, should the one be damaged.
    save_checkpoint(files, _under(state, config))
    write_beside(files.previous_checkpoint, lambda temporary: shutil.copyfile(files.checkpoint, temporary))


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
