"""Which new trial is next? Proposals of the sampler, less what is forbidden and what was run before."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from search.ledger import TrialRecord
from search.limits import excess
from search.space import Space
from search.study import StudyStore
from search.trial_attrs import OBJECTIVES
from trainables.errors import VistuneError, first_line

# As many proposals in a row that are forbidden or were run before are refused, then a trial is drawn instead: a
# sampler that likes best what cannot be run again would propose it for ever.
PROPOSALS_BEFORE_DRAWING = 8

# Combinations among which the next is drawn then.
_CANDIDATES = 10_000


Measure = Callable[[Mapping[str, Any]], Mapping[str, float]]


def nothing_measured(params: Mapping[str, Any]) -> Mapping[str, float]:
    """What a trial costs when nobody asks for it."""
    del params
    return {}


class Proposals:
    """Asks the study's sampler for trials, each of which differs from all before.

    Args:
        seed: of what is drawn where the sampler proposes nothing new.
        measure: what the network of a trial costs, by name.
        limits: the most of it that a trial may cost.
        objectives: what of it the study keeps with the trial.
    """

    def __init__(
        self,
        store: StudyStore,
        space: Space,
        *,
        seed: int,
        measure: Measure = nothing_measured,
        limits: Mapping[str, float] = MappingProxyType({}),
        objectives: Sequence[str] = (),
    ) -> None:
        self._store = store
        self._space = space
        self._seed = seed
        self._measure = measure
        self._limits = limits
        self._objectives = tuple(objectives)
        self._seen: dict[tuple[Any, ...], str] = {}
        self._unfit: dict[tuple[Any, ...], str | None] = {}
        self._again: set[tuple[Any, ...]] = set()
        self._exhausted = False

    def withdraw_half_made(self) -> None:
        """Closes what a driver was proposing when it was killed; a recipe among them is proposed again."""
        for trial in self._store.trials():
            unmeasured = not set(self._objectives) <= set(trial.user_attrs.get(OBJECTIVES, {}))
            if trial.state is TrialState.RUNNING and (unmeasured or self._space.contains(trial.params) is not None):
                self._withdraw(trial, reason="interrupted while it was proposed")

    def withdraw(self, number: int, *, reason: str) -> None:
        """Takes back a trial that has not begun; a recipe among them is proposed again when the search goes on."""
        self._withdraw(self._store.trials()[number], reason=reason)

    def know(self, record: TrialRecord) -> None:
        """Keeps a trial of an earlier session from being proposed again."""
        self._seen[self._key(record.params)] = f"trial {record.number}"

    def know_earlier(self) -> None:
        """Keeps trials of earlier runs from being run again, apart from those that are to be.

        Their scores are known, and hold here. Only a trial of this run can be its winner, so the best of them are run
        again first, and a starting point that a person wrote is run whatever is known of it.
        """
        known = self._store.known_params()
        self._again = {self._key(params) for params, _, again in known if again}
        for params, name, _ in known:
            if self._key(params) not in self._again:
                self._seen[self._key(params)] = name

    def is_known(self, params: Mapping[str, Any]) -> bool:
        """Whether a trial is one of an earlier run that is run again."""
        return self._key(params) in self._again

    def next(self) -> TrialRecord | None:
        """A new trial that no other equals and that is not forbidden; None when there are no more."""
        if self._exhausted:
            return None
        with self._store.batch():
            proposed = self._propose()
        self._exhausted = proposed is None
        return proposed

    def _propose(self) -> TrialRecord | None:
        if self._space.num_combinations is not None and len(self._seen) >= self._space.num_combinations:
            return None
        number, params = self._ask()
        refused = 0
        while (reason := self._reason_against_any(params)) is not None:
            self._store.discard(number, reason=reason, forbidden=self._key(params) not in self._seen)
            refused += 1
            if self._space.num_combinations is not None or refused >= PROPOSALS_BEFORE_DRAWING:
                drawn = self._new_combination()
                if drawn is None:
                    return None
                self._store.study.enqueue_trial(drawn)
            number, params = self._ask()
        self._seen[self._key(params)] = f"trial {number}"
        objectives = self._objectives_of(params)
        if objectives:
            self._store.measured(number, objectives)
        return TrialRecord(number=number, params=params, objectives=objectives)

    def _objectives_of(self, params: Mapping[str, Any]) -> dict[str, float]:
        if not self._objectives:
            return {}
        found = self._measure(params)
        return {name: found[name] for name in self._objectives}

    def _withdraw(self, trial: FrozenTrial, *, reason: str) -> None:
        recipe = trial.system_attrs.get("fixed_params")
        self._store.discard(trial.number, reason=reason)
        if recipe:
            self._store.study.enqueue_trial(recipe)

    def _reason_against(self, params: Mapping[str, Any]) -> str | None:
        """Why a proposal is not run; None when it is."""
        forbidden = self._space.forbidden(params)
        if forbidden is not None:
            return f"forbidden: {forbidden}"
        earlier = self._seen.get(self._key(params))
        if earlier is not None:
            return f"same parameters as {earlier}"
        return None

    def _reason_against_network(self, params: Mapping[str, Any]) -> str | None:
        """The same of what must be measured, which takes up to seconds; asked once for each proposal."""
        if not self._limits and not self._objectives:
            return None
        key = self._key(params)
        if key not in self._unfit:
            try:
                over = excess(self._measure(params), self._limits)
            except VistuneError as error:
                self._unfit[key] = f"cannot be built: {first_line(error)}"
            else:
                self._unfit[key] = None if over is None else f"limit: {over}"
        return self._unfit[key]

    def _reason_against_any(self, params: Mapping[str, Any]) -> str | None:
        return self._reason_against(params) or self._reason_against_network(params)

    def _ask(self) -> tuple[int, dict[str, Any]]:
        trial: optuna.Trial = self._store.study.ask()
        params = self._space.suggest(trial)
        return trial.number, {name: params[name] for name in self._space.searched if name in params}

    def _new_combination(self) -> dict[str, Any] | None:
        """An allowed combination that was not run yet, drawn by seed; None when none is found."""
        seed = [self._seed, len(self._seen)]
        if self._space.num_combinations is not None:
            allowed = (params for params in self._space.combinations() if self._reason_against(params) is None)
            candidates = list(itertools.islice(allowed, _CANDIDATES))
            order = np.random.default_rng(seed).permutation(len(candidates))
            fit = (candidates[at] for at in order if self._reason_against_network(candidates[at]) is None)
        else:
            rng = random.Random(f"{seed} draws")
            drawn = (self._space.draw(rng) for _ in range(_CANDIDATES))
            fit = (params for params in drawn if self._reason_against_any(params) is None)
        chosen = next(fit, None)
        if chosen is None:
            return None
        return {name: chosen[name] for name in self._space.searched if name in chosen}

    def _key(self, params: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple((name, params[name]) for name in self._space.searched if name in params)
