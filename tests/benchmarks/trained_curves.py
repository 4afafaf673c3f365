"""Curves of trials that really train: each epoch is trained when a search first asks what it takes."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from greenlet import getcurrent, greenlet

from search.config import SearchConfig
from search.final import evaluate_winner
from search.results import RunPaths
from trainables.checkpoint import TrialFiles
from trainables.errors import DivergedError
from trainables.runtime import LocalRuntime
from trainables.train import train
from trainables.trial_state import load_task


class TrainedCurves:
    """Trains the trials of one search in this process, one epoch at a time, in turn.

    An epoch counts the CPU seconds of this thread, so that other programs on the machine do not count; the first epoch
    of a trial has the building of its network in it.

    Args:
        run: folder for the weights of the trials.
    """

    def __init__(self, config: SearchConfig, run: Path) -> None:
        self._config = config
        self._paths = RunPaths(run)
        self._num_trials = 0
        load_task(config.task.data, config.task.split)  # else the first trial would pay for reading the images

    def curve(self, params: Mapping[str, Any]) -> TrainedCurve:
        searched = self._config.search_space.searched
        chosen = {name: params[name] for name in searched if name in params}
        number, self._num_trials = self._num_trials, self._num_trials + 1
        return TrainedCurve(self._config, chosen, number=number, trial_dir=self._paths.trial(number))

    def test_score(self, curve: TrainedCurve, *, epochs: int) -> float:
        """Top-1, on the test split, of the best weights that a trial had after so many epochs."""
        curve.put_back(epochs)
        found = evaluate_winner(curve.trial, number=curve.number, run=str(self._paths.root), num_threads=1)
        return float(found["top1"])


class TrainedCurve:
    """A training that is as far as it was asked for; stands for `search.simulated_curves.Curve`.

    Attributes:
        values: the search metric of each epoch trained so far; NaN where the training diverged.
        losses: validation loss of each.
        seconds: what each epoch takes; an epoch that is asked for is trained.
    """

    def __init__(self, config: SearchConfig, params: Mapping[str, Any], *, number: int, trial_dir: Path) -> None:
        trial = config.trial_config(params)
        self.trial = trial.model_dump(mode="json")
        self.number = number
        self.epochs = trial.max_epochs
        self.values: list[float] = []
        self.losses: list[float] = []
        self.seconds: Sequence[float] = _TrainedWhenAsked(self)
        self._metric = config.metric
        self._spent: list[float] = []
        self._weights = TrialFiles(trial_dir).best_weights
        runtime = _OneEpochAtATime(trial_dir=trial_dir, num_threads=1)
        self._training = greenlet(lambda: train(trial, runtime))

    def until(self, epoch: int) -> Sequence[float]:
        """Trains up to an epoch; the seconds of each so far."""
        while len(self._spent) < epoch:
            began = time.thread_time()
            try:
                metrics = self._training.switch()
            except DivergedError:
                metrics = {self._metric: math.nan, "val_loss": math.nan}
            self._spent.append(time.thread_time() - began)
            self.values.append(metrics[self._metric])
            self.losses.append(metrics["val_loss"])
            self._keep_weights()
        return self._spent

    def put_back(self, epochs: int) -> None:
        """Makes the best weights those after so many epochs; more may have been trained than were asked about."""
        shutil.copyfile(self._kept(epochs), self._weights)

    def _keep_weights(self) -> None:
        if self._weights.exists():
            shutil.copyfile(self._weights, self._kept(len(self._spent)))

    def _kept(self, epochs: int) -> Path:
        return self._weights.with_name(f"best-after-{epochs}.safetensors")


class _OneEpochAtATime(LocalRuntime):
    """Hands each epoch's metrics to whoever waits for them, and goes on when the next is asked for."""

    def report(self, metrics: Mapping[str, float], *, last: bool) -> None:
        del last
        asking = getcurrent().parent
        assert asking is not None
        asking.switch(dict(metrics))


class _TrainedWhenAsked(Sequence[float]):
    def __init__(self, curve: TrainedCurve) -> None:
        self._curve = curve

    def __len__(self) -> int:
        return self._curve.epochs

    def __getitem__(self, index: Any) -> Any:
        return self._curve.until(index + 1)[index]
