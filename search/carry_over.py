"""Does a trial of another search lie in this space, and has it trained what it would train here?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from search.conditions import existence, exists
from search.config import SearchConfig
from search.domains import CategoricalDomain, Domain
from search.draws import GivenDraw
from search.knowledge import Params
from search.pipeline_params import PREFIX
from search.scalars import same, word
from trainables.conditions import has_effect
from trainables.config import TrialConfig
from trainables.errors import ConfigError
from trainables.hyperparameters import BUILTIN_AUGMENTATIONS, Hyperparameters

# How fast a network trains, and not what it learns.
_SPEED_ONLY = ("channels_last", "compile")


class NotHereError(Exception):
    """Why a trial of an earlier search does not carry over; completes a sentence that begins with a count of trials."""


class CarryOver:
    """Takes trials of one search to the space of another.

    A trial is what it trained: the values of all hyperparameters that had an effect, whether they were searched, fixed
    or left at their defaults. So one that had no dropout carries over to a space that searches it from 0.

    Args:
        there: the earlier search.
        here: this search.
        names: parameters of the earlier search that stand for others of this one.
    """

    def __init__(self, *, there: SearchConfig, here: SearchConfig, names: Mapping[str, str]) -> None:
        self._there = there
        self._here = here
        self._space = here.search_space
        self._names = names
        self._searched_there = {names.get(name, name) for name in there.search_space.searched}

    def exact(self, params: Mapping[str, Any]) -> Params:
        """The searched parameters of the trial here that trains the same; apart from seed and speed.

        Args:
            params: the searched parameters of the trial there.

        Raises:
            NotHereError: if there is none.
        """
        trial = self._there.trial_config(params)
        known = self._known(trial, params)
        chosen = dict(self._space.fixed)
        for name, domain in self._space.domains.items():
            if exists(name, domain, chosen):
                chosen[name] = self._value(name, domain, known)
        found = {name: chosen[name] for name in self._space.searched if name in chosen}
        self._refuse_forbidden(found)
        try:
            twin = self._here.trial_config(found)
        except ConfigError as error:
            raise NotHereError(f"with values that do not go together here ({str(error).splitlines()[0]})") from error
        self._compare(trial, twin, known)
        return found

    def recipe(self, params: Mapping[str, Any]) -> Params:
        """What of a trial can be tried here: all that was searched there and here, and what else has a value.

        What this space fixes or lacks may differ, and what it has new may be left to the sampler.

        Raises:
            NotHereError: if a value that was searched there lies outside this space.
        """
        known = self._known(self._there.trial_config(params), params)
        chosen = dict(self._space.fixed)
        undecided: set[str] = set()
        for name, domain in self._space.domains.items():
            there = existence(name, domain, chosen, undecided=undecided)
            if there is False:
                continue
            try:
                value = self._value(name, domain, known) if there else None
            except NotHereError:
                if name in self._searched_there and name in known:
                    raise
                there = None
            if there:
                chosen[name] = value
            else:
                undecided.add(name)
        found = {name: chosen[name] for name in self._space.searched if name in chosen}
        if not found:
            raise NotHereError("without a parameter that is searched here")
        self._refuse_forbidden(found)
        return found

    def parameters_in_words(self) -> str | None:
        """In what the two spaces differ; None where the same parameters are searched."""
        here, lost = (
            set(self._space.searched),
            [name for name in self._names_there() if name not in self._space.searched],
        )
        fixed = [f"{name} ({word(self._space.fixed[name])})" for name in lost if name in self._space.fixed]
        lacking = [name for name in lost if name not in self._space.fixed]
        new = [name for name in self._space.searched if name in here - self._searched_there]
        parts = [
            f"this space fixes {', '.join(fixed)}" if fixed else "",
            f"this space lacks {', '.join(lacking)}" if lacking else "",
            f"searched here and not there: {', '.join(new)}" if new else "",
        ]
        return "; ".join(part for part in parts if part) or None

    def _names_there(self) -> list[str]:
        return [self._names.get(name, name) for name in self._there.search_space.searched]

    def _known(self, trial: TrialConfig, params: Mapping[str, Any]) -> Params:
        """What a trial trained with, under the names of this space; only what had an effect."""
        own = {name: getattr(trial, name) for name in Hyperparameters.model_fields}
        values = {name: value for name, value in own.items() if has_effect(name, own)}
        values |= {name: value for name, value in params.items() if name.startswith(PREFIX)}
        mapped = {here: values[there] for there, here in self._names.items() if there in values}
        return {name: value for name, value in values.items() if name not in self._names} | mapped

    def _value(self, name: str, domain: Domain, known: Mapping[str, Any]) -> Any:
        """The value of a searched parameter, as its domain has it."""
        if name not in known:
            raise NotHereError(f"without {name}")
        value = known[name]
        if domain.scaled_by is not None and isinstance(value, int | float):
            other = domain.scaled_by.parameter
            size = known.get(other, Hyperparameters.model_fields[other].default)
            value = _tidy(value / domain.scaled_by.factor(size), domain)
        if domain.problem(value) is not None:
            raise NotHereError(_outside(name, domain, value))
        if isinstance(domain, CategoricalDomain):
            return next(each for each in domain.values if same(each, value))
        return domain.suggest(GivenDraw({name: value}), name)

    def _refuse_forbidden(self, params: Mapping[str, Any]) -> None:
        text = self._space.forbidden(params)
        if text is not None:
            raise NotHereError(f"forbidden here ({text})")

    def _compare(self, trial: TrialConfig, twin: TrialConfig, known: Mapping[str, Any]) -> None:
        """What the two would train must be the same in all that had an effect there."""
        for name in Hyperparameters.model_fields:
            if name in known and name not in _SPEED_ONLY and not _alike(known[name], getattr(twin, name)):
                here = word(getattr(twin, name))
                why = (
                    "to which this space fixes it"
                    if name in self._space.fixed
                    else "its default, as the space lacks it"
                )
                raise NotHereError(f"with {name} other than {here}, {why}")
        pipeline = trial.augment
        own = trial.augmentations.get(pipeline) if pipeline not in BUILTIN_AUGMENTATIONS else None
        if own is not None and own != twin.augmentations.get(pipeline):
            raise NotHereError(f"with an augmentation {pipeline} of other transforms than here")


def _outside(name: str, domain: Domain, value: Any) -> str:
    if isinstance(domain, CategoricalDomain) or isinstance(value, bool) or not isinstance(value, int | float):
        return f"with {name}={word(value)}, not in this space"
    if domain.low <= value <= domain.high:
        return f"with {name} between the steps of {domain.describe()}"
    return f"with {name} outside {domain.describe()}"


def _tidy(value: float, domain: Domain) -> float:
    """A quotient without its rounding error at the ends of a domain."""
    if isinstance(domain, CategoricalDomain):
        numbers = [each for each in domain.values if isinstance(each, int | float)]
    else:
        numbers = [domain.low, domain.high]
    return next((each for each in numbers if math.isclose(value, each, rel_tol=1e-9)), value)


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, int | float) and not isinstance(other, bool):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return bool(one == other)
