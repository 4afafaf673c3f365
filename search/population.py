"""Population based training: members train side by side, and the worst go on from the weights of the best."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from search.ledger import Status, TrialRecord
from search.schedulers import Continue, Decision, Exploit, FullScheduler, Step, is_loss

Perturb = Callable[[Mapping[str, Any], random.Random], dict[str, Any]]


@dataclass
class _Member:
    """A trial of a population.

    Attributes:
        born: epochs that it took over from another trial.
        values: the metric by epoch.
        status: RUNNING, also while it waits for a comparison, until it has ended.
    """

    number: int
    params: Mapping[str, Any]
    slot: int
    born: int
    values: dict[int, float] = field(default_factory=dict)
    status: Status = Status.RUNNING

    @property
    def epochs(self) -> int:
        return max(self.values, default=self.born)


class PopulationScheduler(FullScheduler):
    """Population based training, in step: all members of a population are compared at the same epochs.

    Every `interval` epochs a member pauses. When all have arrived, each of the worst `quantile` ends, and in its place
    a new trial begins: a copy of a randomly chosen one of the best, with its weights, optimizer state and curve, and
    with parameters moved a little. So a trial of the study has one set of parameters from its first epoch of its own
    to its last, and its `lineage` names the trial and the epoch it goes back to; the chain of ancestors is the history
    of parameters. Members that fail leave the population; one that is no worse than its model goes on unchanged.

    In step, because then who replaces whom follows from the curves alone: not from which worker was faster, and the
    same after a restart. Actors that wait at a comparison are free for another population: the trials of a search
    form populations in the order in which they are proposed.

    Args:
        interval: epochs between two comparisons.
        grace_period: no comparison is earlier.
        population: members of one population.
        quantile: share that is replaced, at least one, in (0, 0.5].
        perturb: new parameters from those of the model.
        seed: of the choice of models and of the moves, with the trial's number and the epoch.

    Source: Jaderberg et al., arXiv:1711.09846.
    """

    pauses = True

    def __init__(
        self,
        *,
        metric: str,
        max_epochs: int,
        interval: int,
        grace_period: int,
        population: int,
        quantile: float,
        perturb: Perturb,
        seed: int,
    ) -> None:
        super().__init__(metric=metric)
        self._comparisons = {epoch for epoch in range(interval, max_epochs, interval) if epoch >= grace_period}
        self._population = population
        self._quantile = quantile
        self._perturb = perturb
        self._seed = seed
        self._members: dict[int, _Member] = {}
        self._slots: list[list[_Member]] = []  # who held each place of a population, one after the other
        self._rests_at: dict[int, int] = {}
        self._let_go_at: dict[int, int] = {}
        self._steps: deque[Step] = deque()

    def take_up(self, records: Iterable[TrialRecord]) -> None:
        super().take_up(records)
        for cohort in self._cohorts():
            self._resume(cohort)

    def add(self, record: TrialRecord) -> None:
        if record.number in self._members:
            return
        lineage = record.lineage
        slot = len(self._slots) if lineage is None else self._members[lineage.replaces].slot
        born = record.inherited_epochs
        member = _Member(number=record.number, params=record.params, slot=slot, born=born)
        self._members[record.number] = member
        if lineage is None:
            self._slots.append([])
        self._slots[slot].append(member)

    def close(self, record: TrialRecord) -> None:
        super().close(record)
        self._rests_at.pop(record.number, None)
        self._members[record.number].status = record.status

    def next_step(self, *, closing: bool) -> Step | None:
        if not self._steps:
            for cohort in self._cohorts():
                full = len(cohort) == self._population
                held = [slot[-1] for slot in cohort if slot[-1].status is Status.RUNNING]
                if held and (full or closing) and all(member.number in self._rests_at for member in held):
                    epoch = min(self._rests_at[member.number] for member in held)
                    together = [member for member in held if self._rests_at[member.number] == epoch]
                    self._steps.extend(self._compare(together, epoch=epoch))
                    break
        if not self._steps:
            return None
        step = self._steps.popleft()
        if isinstance(step, Continue):
            self._let_go_at[step.number] = self._rests_at.pop(step.number)
            self.paused.discard(step.number)
        return step

    def _cohorts(self) -> list[list[list[_Member]]]:
        """The populations, each a list of places."""
        starts = range(0, len(self._slots), self._population)
        return [self._slots[start : start + self._population] for start in starts]

    def _decide(self, number: int, *, epoch: int, value: float, score: float) -> Decision:
        del score
        member = self._members[number]
        member.values[epoch] = value
        if epoch not in self._comparisons or epoch <= max(member.born, self._let_go_at.get(number, 0)):
            return Decision.GO_ON
        self._rests_at[number] = epoch
        return Decision.PAUSE

    def _replay(self, record: TrialRecord) -> None:
        self._members[record.number].values.update(record.curve)

    def _compare(self, members: Sequence[_Member], *, epoch: int) -> list[Step]:
        """What becomes of each member. Copies come first: whoever is copied must not have moved on."""
        sign = 1.0 if is_loss(self._ranked_by) else -1.0
        ranked = sorted(members, key=lambda each: (sign * each.values[epoch], each.number))
        count = min(len(ranked) // 2, max(1, int(len(ranked) * self._quantile)))
        best, worst = ranked[:count], ranked[len(ranked) - count :]
        copies: dict[int, Step] = {}
        for loser in worst:
            rng = random.Random(f"{self._seed} population {loser.number} {epoch}")
            donor = rng.choice(best)
            if sign * donor.values[epoch] < sign * loser.values[epoch]:
                params = self._perturb(donor.params, rng)
                copies[loser.number] = Exploit(loser.number, donor.number, epoch, params)
        kept: list[Step] = [Continue(each.number) for each in members if each.number not in copies]
        return [*copies.values(), *kept]

    def _resume(self, cohort: Sequence[Sequence[_Member]]) -> None:
        """Finds where a population of an earlier session stands: which comparison was the last that was acted upon.

        What it led to and was not done yet is done first.
        """
        members = [member for slot in cohort for member in slot]
        acted = max((self._last_acted_upon(member) for member in members), default=0)
        undone: set[int] = set()
        if acted:
            present = [member for slot in cohort if (member := _holder(slot, epoch=acted)) is not None]
            replaced = {member.number for slot in cohort for member in slot[:-1]}
            for step in self._compare(present, epoch=acted):
                number = step.number if isinstance(step, Continue) else step.loser
                member = self._members[number]
                if number not in replaced and member.status is Status.RUNNING and member.epochs == acted:
                    self._steps.append(step)
                    undone.add(number)
        for member in (slot[-1] for slot in cohort):
            rests = member.epochs in self._comparisons and member.epochs > max(member.born, acted)
            if member.status is Status.RUNNING and (rests or member.number in undone):
                self._rests_at[member.number] = member.epochs
                self.paused.add(member.number)

    def _last_acted_upon(self, member: _Member) -> int:
        """The last comparison that a trial came from or went past."""
        passed = (epoch for epoch in self._comparisons if member.born < epoch < member.epochs)
        return max(member.born, max(passed, default=0))


def _holder(slot: Sequence[_Member], *, epoch: int) -> _Member | None:
    """Who held a place and was compared at an epoch."""
    for member in slot:
        ended_there = member.status is Status.COMPLETED and member.epochs == epoch
        if member.born < epoch and epoch in member.values and not ended_there:
            return member
    return None
