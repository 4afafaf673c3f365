"""Several trials in one process: those that can be fused train together, the others take turns with them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

from trainables.config import TrialConfig
from trainables.errors import CrowdedError, DisturbedError, VistuneError, first_line
from trainables.fusable import Fusion, fusion_key, fusion_of, give_up_fusing
from trainables.fused_trials import FusedTrials, SlotError
from trainables.memory import is_out_of_memory
from trainables.runtime import Runtime, StopTrial
from trainables.train import keep, train_one_epoch, validate
from trainables.trial_log import TrialLog
from trainables.trial_state import EpochMetrics, is_over, start_trial


class FusedRuntime(Runtime, Protocol):
    """To whom one of several trials of a process reports."""

    def settle(self) -> None:
        """Waits for what is decided of the trial's reports, where that comes later than `report` returns.

        It is called once all trials have reported their epochs, so that their decisions are waited for together, and
        raises `StopTrial` to end this one.
        """


@dataclass(frozen=True)
class Candidate:
    """A trial to be trained, and to whom it reports: one runtime for each."""

    config: TrialConfig
    runtime: FusedRuntime


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        metrics: of its last epoch; None if it finished none.
        error: why it failed; None if it came to its end or was stopped.
    """

    candidate: Candidate
    metrics: EpochMetrics | None
    error: Exception | None = None


_log = logging.getLogger(__name__)

NextTrial = Callable[[], Candidate | None]


def train_fused(next_trial: NextTrial, *, num_slots: int, on_end: Callable[[Outcome], None]) -> None:
    """Trains trials, up to `num_slots` at a time, until there are none left.

    Slots are filled whenever one is free, between epochs. Each trial reports, is saved, resumed and stopped as by
    `train`: its runtime's `report` or `settle` ends it by raising `StopTrial`, and an error of its own ends no other.
    Where memory runs out, trials that were not alone fail with a `CrowdedError`; they may fit where fewer are given.
    Trials that agree in what `fusion_key` names train an epoch together, wherever each of them stands; one that has no
    partner, or cannot be fused, trains its epoch as `train` does. All runtimes must be of this process and one device.

    Args:
        next_trial: the next trial; None where there is none at the moment, which ends the training once no slot is
            occupied.
        num_slots: at least 1.
        on_end: called once for each trial.
    """
    _Slots(next_trial, num_slots=num_slots, on_end=on_end).run()


class _Slots:
    """The trials in training."""

    def __init__(self, next_trial: NextTrial, *, num_slots: int, on_end: Callable[[Outcome], None]) -> None:
        self._next_trial = next_trial
        self._num_slots = num_slots
        self._on_end = on_end
        self._slots: list[_Slot] = []
        # Stacks of the last round: weights move only when a trial comes or goes.
        self._stacks: dict[tuple[int, ...], FusedTrials] = {}

    def run(self) -> None:
        try:
            while True:
                self._fill()
                if not self._slots:
                    return
                groups = self._groups()
                self._keep_stacks_of(groups)
                for group in groups:
                    self._advance(group)
                for slot in self._slots:
                    slot.settle()
                self._release()
        finally:
            for slot in self._slots:
                slot.close()

    def _fill(self) -> None:
        while len(self._slots) < self._num_slots and (candidate := self._next_trial()) is not None:
            self._slots.append(_Slot(candidate))
            self._release()

    def _release(self) -> None:
        ended = [slot for slot in self._slots if slot.outcome is not None]
        short = [(slot, error) for slot in ended if (error := slot.error) is not None and is_out_of_memory(error)]
        if short and len(self._slots) > 1:
            beside, together = len(self._slots) - 1, len(short) > 1
            for slot, error in short:
                slot.fail(CrowdedError(beside, "" if together else first_line(error)))
        for slot in ended:
            self._slots.remove(slot)
            slot.close()
            assert slot.outcome is not None
            self._on_end(slot.outcome)

    def _groups(self) -> list[list[_Slot]]:
        groups: dict[Hashable, list[_Slot]] = {}
        for slot in self._slots:
            groups.setdefault(slot.key(), []).append(slot)
        return list(groups.values())

    def _keep_stacks_of(self, groups: list[list[_Slot]]) -> None:
        """The memory of others is free before new ones are made."""
        members = {_members(group) for group in groups}
        for each in self._stacks.keys() - members:
            del self._stacks[each]

    def _advance(self, group: list[_Slot]) -> None:
        """Trains a group for an epoch."""
        engine = group[0].fusion.engine
        if len(group) == 1 or engine is None:
            for slot in group:
                slot.train_alone()
            return
        trials, members = [slot.trial for slot in group], _members(group)
        try:
            fused = self._stacks.pop(members, None) or FusedTrials(trials, engine=engine)
            metrics = fused.train_epoch()
            if trials[0].config.refit_epochs is None:
                metrics = [ours | theirs for ours, theirs in zip(metrics, fused.validate(), strict=True)]
        except SlotError as error:  # of one trial, in the middle of an epoch of all
            assert isinstance(error.__cause__, Exception)
            for slot in group:
                slot.fail(DisturbedError("a trial beside it failed in mid-epoch"))
            group[error.slot].fail(error.__cause__)
            return
        except Exception as error:  # of no single trial: their memory, the device, or how they are fused
            if not _is_known(error):
                _log.exception("%s cannot be trained fused: each trial goes on alone", trials[0].config.arch)
                give_up_fusing(trials[0], reason=first_line(error))
                error = DisturbedError("it could not be trained fused, and goes on alone")
            for slot in group:
                slot.fail(error)
            return
        self._stacks[members] = fused
        for slot, own in zip(group, metrics, strict=True):
            slot.finish_epoch(own)


def _members(group: list[_Slot]) -> tuple[int, ...]:
    return tuple(id(slot.trial) for slot in group)


def _is_known(error: Exception) -> bool:
    """Whether memory, the device or the images are to blame, and not how trials are fused."""
    return isinstance(error, VistuneError | OSError | torch.AcceleratorError) or is_out_of_memory(error)


class _Slot:
    """One trial; `outcome` says how it ended, once it has."""

    def __init__(self, candidate: Candidate) -> None:
        self._candidate = candidate
        self._metrics: EpochMetrics | None = None
        self._open = contextlib.ExitStack()
        self.outcome: Outcome | None = None
        with self._ending():
            self.trial = start_trial(candidate.config, candidate.runtime)
            self.fusion: Fusion = fusion_of(self.trial)
            history = self.trial.history
            self._log = self._open.enter_context(
                TrialLog(candidate.runtime.trial_dir, candidate.config, first_epoch=len(history))
            )
            for past in range(len(history)):
                self._report(history[past], history[: past + 1])
            candidate.runtime.settle()  # before the next epoch: the last of them may be where it is stopped

    def close(self) -> None:
        """Ends the trial's log."""
        self._open.close()

    def key(self) -> Hashable:
        """Slots with the same key may train together."""
        return id(self) if self.fusion.engine is None else fusion_key(self.trial, self.fusion)

    def train_alone(self) -> None:
        """An epoch as `train` does it."""
        with self._ending():
            metrics = train_one_epoch(self.trial, epoch=len(self.trial.history))
            if self.trial.config.refit_epochs is None:
                metrics |= validate(self.trial)
            self._keep(metrics)

    def finish_epoch(self, metrics: EpochMetrics) -> None:
        """Keeps and reports an epoch that was trained together with others."""
        with self._ending():
            self._keep(metrics)

    def settle(self) -> None:
        """Waits for what is decided of the reports."""
        if self.outcome is None:
            with self._ending():
                self._candidate.runtime.settle()

    @property
    def error(self) -> Exception | None:
        """Why the trial failed, if it did."""
        return None if self.outcome is None else self.outcome.error

    def fail(self, error: Exception) -> None:
        """Ends the trial."""
        self.outcome = Outcome(self._candidate, self._metrics, error)

    def _keep(self, metrics: EpochMetrics) -> None:
        keep(self.trial, metrics)
        self._log.add_epoch(len(self.trial.history), metrics)
        self._report(metrics, self.trial.history)

    def _report(self, metrics: EpochMetrics, history: list[EpochMetrics]) -> None:
        self._metrics = metrics
        is_last = is_over(self._candidate.config, history)
        self._candidate.runtime.report(metrics, last=is_last)
        if is_last:
            raise StopTrial

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        """Makes an end of the trial its outcome."""
        try:
            yield
        except StopTrial:
            self.outcome = Outcome(self._candidate, self._metrics)
        except Exception as error:
            self.fail(error)
