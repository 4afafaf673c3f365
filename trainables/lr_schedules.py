"""What is the learning rate at a moment of training? A pure function of that moment and of the epochs before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from trainables.config import TrialConfig
from trainables.metric_names import is_better

History = Sequence[Mapping[str, float]]

# Smith's one-cycle policy as torch's OneCycleLR has it: from 1/25 of the peak, which it reaches after 30 % of training.
_ONE_CYCLE_START = 1 / 25
_ONE_CYCLE_RISE = 0.3


def lr_factor(epoch: float, config: TrialConfig, history: History = ()) -> float:
    """The learning rate at a moment of training, as a fraction of the peak.

    The schedule spans `max_epochs` whenever the trial may be stopped, so that a rung previews the full run fairly.
    Nothing is remembered between calls, so a resumed trial has the learning rates of an uninterrupted one.

    A linear warm-up comes first, and step and plateau count their epochs from its end. one_cycle has none: its rise
    is the warm-up, and `warmup_epochs` is left alone. It moves the learning rate only; momentum, which its paper moves
    the other way, stays what the configuration says, being searched itself.

    Args:
        epoch: epochs done, fractional, in [0, max_epochs].
        history: metrics of the finished epochs, oldest first; only plateau reads them, and only those before `epoch`.

    Returns:
        A factor in [0, 1].

    Source: warm-up, arXiv:1706.02677; cosine annealing, arXiv:1608.03983; one-cycle, arXiv:1708.07120.
    """
    if config.lr_schedule == "one_cycle":
        return _one_cycle(epoch, config)
    if epoch < config.warmup_epochs:
        return epoch / config.warmup_epochs
    return _AFTER_WARMUP[config.lr_schedule](epoch, config, history)


def _constant(_epoch: float, _config: TrialConfig, _history: History) -> float:
    return 1.0


def _cosine(epoch: float, config: TrialConfig, _history: History) -> float:
    progress = (epoch - config.warmup_epochs) / (config.max_epochs - config.warmup_epochs)
    return 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def _step(epoch: float, config: TrialConfig, _history: History) -> float:
    return config.lr_drop ** math.floor((epoch - config.warmup_epochs) / config.step_epochs)


def _plateau(epoch: float, config: TrialConfig, history: History) -> float:
    return config.lr_drop ** _num_drops(history[: math.floor(epoch)], config)


_AFTER_WARMUP: dict[str, Callable[[float, TrialConfig, History], float]] = {
    "constant": _constant,
    "cosine": _cosine,
    "step": _step,
    "plateau": _plateau,
}


def _num_drops(history: History, config: TrialConfig) -> int:
    """How often `plateau_patience` epochs passed without a better metric; each drop starts a new count."""
    best: float | None = None
    waited = drops = 0
    for finished, metrics in enumerate(history, start=1):
        if is_better(metrics[config.metric], best, metric=config.metric):
            best, waited = metrics[config.metric], 0
        elif finished > config.warmup_epochs:  # while the rate rises it is not what holds the metric back
            waited += 1
        if waited == config.plateau_patience:
            drops, waited = drops + 1, 0
    return drops


def _one_cycle(epoch: float, config: TrialConfig) -> float:
    peak = _ONE_CYCLE_RISE * config.max_epochs
    if epoch < peak:
        return _ease(_ONE_CYCLE_START, 1.0, progress=epoch / peak)
    return _ease(1.0, 0.0, progress=min((epoch - peak) / (config.max_epochs - peak), 1.0))


def _ease(start: float, end: float, *, progress: float) -> float:
    """From start to end along half a cosine, for progress in [0, 1]."""
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * progress))
