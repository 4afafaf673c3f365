"""When does a search end, what of it is kept, and how is its winner tried? Sections `budget`, `keep` and `final`."""

from __future__ import annotations

from pydantic import Field

from search.config_types import Duration, duration_s
from search.scalars import StrictFloat, StrictInt
from trainables.hyperparameters import Frozen


class BudgetConfig(Frozen):
    """When the search ends: at whichever limit is reached first."""

    trials: StrictInt | None = Field(default=None, ge=1, description="Number of trials.")
    epochs: StrictInt | None = Field(default=None, ge=1, description="Epochs over all trials.")
    time: Duration = Field(default=None, description="90s, 30m, 2h, 1d, or seconds.")
    device_hours: StrictFloat | None = Field(
        default=None,
        gt=0,
        description="Hours of training over all trials, times the GPUs of a trial (without any, times its CPU cores).",
    )

    @property
    def time_s(self) -> float | None:
        """The time limit in seconds."""
        return None if self.time is None else duration_s(self.time)

    @property
    def is_limited(self) -> bool:
        """Whether there is any limit."""
        return any(limit is not None for limit in (self.trials, self.epochs, self.time, self.device_hours))


class KeepConfig(Frozen):
    """Whose weights stay on disk; what a resume needs is never removed."""

    top: StrictInt | None = Field(
        default=None,
        ge=1,
        description="Best weights of this many trials are kept, of all others they go when the trial has ended; by "
        "default all are kept. Those of a Pareto front always are.",
    )
    gib: StrictFloat | None = Field(
        default=None,
        gt=0,
        description="Most that the weights of ended trials take in GiB; those of the worst go first.",
    )


class FinalConfig(Frozen):
    """What is done with the best trials before the test split is opened."""

    top_k: StrictInt = Field(
        default=1,
        ge=1,
        description="Trials that are trained again; the mean of their validation scores picks the winner.",
    )
    seeds: StrictInt = Field(
        default=0,
        ge=0,
        description="Trainings of each of them, and of the winner on training and validation images together; 0 "
        "evaluates the weights that the search found.",
    )
