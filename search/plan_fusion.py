"""Would trials that share a device train faster fused? A few steps of each architecture are timed both ways."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

import torch

from search.config import SearchConfig
from search.plan_cost import DRAWS, drawn, local_runtime, time_steps, without_weights
from trainables.config import TrialConfig
from trainables.errors import ConfigError, VistuneError
from trainables.fusable import fusion_of
from trainables.fused_trials import FusedTrials
from trainables.memory import release_memory
from trainables.trial_state import start_trial

_STEPS, _ROUNDS = 8, 3
# Less than this may be chance, and a process of its own shields a trial from what happens to others.
_WORTH_IT = 1.1


@dataclass(frozen=True)
class Gain:
    """How much faster trials of one kind train together than one after the other.

    Attributes:
        trials: how many were fused.
        ratio: their time one after the other, divided by their time fused; 1 where they cannot be fused.
        reason: why they cannot; empty where they can.
    """

    arch: str
    batch_size: int
    trials: int
    ratio: float
    reason: str = ""


def measure_gains(config: SearchConfig) -> list[Gain]:
    """Times each architecture at the batch size that is drawn most often with it, trials enough to fill a device.

    A CPU is timed with the threads of a trial, a GPU as it is.
    """
    found, trials = [], _enough(config)
    for arch in config.architectures:
        own = [trial for trial in trials if trial.arch == arch]
        if own:
            batch_size = Counter(trial.batch_size for trial in own).most_common(1)[0][0]
            found.append(_measure(config, next(trial for trial in own if trial.batch_size == batch_size)))
    if found:
        release_memory(local_runtime(config, trials[0]).device)  # the trials need it
    return found


def expected_gain(config: SearchConfig, gains: Sequence[Gain]) -> float:
    """The same of a device full of random trials, of which only those of one architecture and batch size are fused.

    Of a group that is smaller than what was timed, the gain is taken to be smaller in proportion.
    """
    most = config.resources.trials_per_device
    ratios = {gain.arch: gain.ratio for gain in gains}
    trials = _enough(config)
    ratios_of_devices = []
    for start in range(0, len(trials) - most + 1, most):
        groups = Counter((trial.arch, trial.batch_size) for trial in trials[start : start + most])
        # In units of what a trial alone takes; architectures count alike.
        fused = sum(count / _ratio_of(count, most, ratios.get(arch, 1.0)) for (arch, _), count in groups.items())
        ratios_of_devices.append(most / fused)
    return mean(ratios_of_devices)


def check_can_time(config: SearchConfig) -> None:
    """Refuses to time trials here that would run on something else.

    Raises:
        ConfigError: if this machine has no GPU, and trials would use one.
    """
    if config.resources.gpus_per_worker > 0 and not torch.cuda.is_available():
        raise ConfigError(
            "resources.fused: auto is decided by timing trials on the machine that starts the search, and it has no "
            "GPU; write true or false, or run python -m search.plan on a machine with one"
        )


def decided(config: SearchConfig, gain: float) -> SearchConfig:
    """The search with `resources.fused: auto` replaced by what is faster.

    Where fusing is not worth it, each trial has a device of its own: `trials_per_device` is then 1.

    Args:
        gain: expected, on the machine that trains.
    """
    worth_it = gain >= _WORTH_IT
    chosen = {"fused": worth_it, "trials_per_device": config.resources.trials_per_device if worth_it else 1}
    return config.model_copy(update={"resources": config.resources.model_copy(update=chosen)})


def _ratio_of(count: int, most: int, ratio: float) -> float:
    return 1.0 if count == 1 else 1.0 + (ratio - 1.0) * (count - 1) / (most - 1)


def _enough(config: SearchConfig) -> list[TrialConfig]:
    """Random trials that fill a device a few times."""
    return drawn(config, count=max(DRAWS, 4 * config.resources.trials_per_device))


def _measure(config: SearchConfig, trial: TrialConfig) -> Gain:
    number = config.resources.trials_per_device
    plain = without_weights(trial)
    threads = torch.get_num_threads()
    try:
        runtime = local_runtime(config, trial)
        states = [
            start_trial(plain.model_copy(update={"seed": seed, "lr": trial.lr / (1 + seed)}), runtime)
            for seed in range(number + 1)
        ]
        fusion = fusion_of(states[0])
        if fusion.engine is None:
            return Gain(trial.arch, trial.batch_size, number, ratio=1.0, reason=fusion.reason)
        alone, fused = states[0], FusedTrials(states[1:], engine=fusion.engine)
        # In turns: what else the machine does falls on both.
        ratios = [number * time_steps(alone)[0] / _time_fused_steps(fused) for _ in range(_ROUNDS)]
        return Gain(trial.arch, trial.batch_size, number, ratio=median(ratios))
    except VistuneError as error:
        return Gain(trial.arch, trial.batch_size, number, ratio=1.0, reason=str(error).splitlines()[0])
    finally:
        torch.set_num_threads(threads)


def _time_fused_steps(fused: FusedTrials) -> float:
    """Seconds of a step of all trials together, reading and augmentation included."""
    fused.train_epoch(steps=1)
    batches = fused.trials[0].train_batches
    whole = -(-_STEPS // batches.read_together) * batches.read_together  # with the first of some all are read
    steps = min(whole, batches.num_steps(0))
    started = time.perf_counter()
    fused.train_epoch(steps=steps)
    return (time.perf_counter() - started) / steps
