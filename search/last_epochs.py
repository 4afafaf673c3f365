"""Which epochs has a trial saved that nobody has heard of? It saves first, reports second, and is cut off in between.

The weights that it leaves are those of its best epoch, so the record of a trial that is over has to know that epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainables.trial_state import EpochMetrics


def saved_epochs(trial_dir: Path, *, best_epoch: int | None) -> Sequence[EpochMetrics]:
    """The epochs that a trial's checkpoint holds, from the first; none where its weights are of the best epoch known.

    Whatever process still trains the trial writes nothing more from now on.

    Args:
        best_epoch: of the trial, as it has reported; None where it has reported none.
    """
    import torch

    from trainables.checkpoint import Attempt, TrialFiles, best_metrics, newest_checkpoint

    files = TrialFiles(trial_dir)
    files.fetch()
    if not files.best_weights.is_file():
        return ()
    Attempt(files)
    best = best_metrics(files)
    if best is None or best["epoch"] == best_epoch:
        return ()
    state, _ = newest_checkpoint(files, device=torch.device("cpu"))
    history = [] if state is None else list(state["history"])
    # Of an epoch the weights are saved before the checkpoint: it may have been cut off between these as well.
    return [*history, best] if best["epoch"] == len(history) + 1 else history
