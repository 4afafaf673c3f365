"""Who proposes trials, and who ends them early? The sections `sampler` and `scheduler` of a search file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from search.rungs import rung_epochs
from search.scalars import StrictBool, StrictFloat, StrictInt
from trainables.fidelity import Fidelity, FidelityName
from trainables.hyperparameters import Frozen

_MAX_SEED = 2**32 - 1  # NumPy's

SamplerName = Literal["tpe", "gp", "cmaes", "qmc", "nsga2", "nsga3", "random", "grid", "forest", "curve_gp"]
SchedulerName = Literal["asha", "asha_promotion", "hyperband", "median", "pbt", "curves", "none"]


class SamplerConfig(Frozen):
    """Who proposes the next trial."""

    name: SamplerName = Field(
        default="curve_gp",
        description="curve_gp (a Gaussian process) and forest (extremely randomised trees) predict the final score "
        "from the curves of all trials, stopped and running ones included; tpe learns from finished trials "
        "(arXiv:2304.11127); gp is a Gaussian process of final scores, good for few trials; cmaes adapts a normal "
        "distribution over the numeric parameters; qmc fills the space evenly (Sobol); nsga2 and nsga3 are genetic; "
        "random draws; grid runs every combination of a finite space in order.",
    )
    seed: StrictInt = Field(default=0, ge=0, le=_MAX_SEED, description="Seed of the proposals and of the trials.")
    startup_trials: StrictInt = Field(
        default=10, ge=0, description="Random trials before curve_gp, forest, tpe, gp or cmaes begins to learn."
    )
    cost_aware: StrictBool = Field(
        default=False,
        description="Whether curve_gp and forest weigh the time that a trial is predicted to take: of promising trials "
        "they prefer those with the most to gain per second.",
    )
    population_size: StrictInt = Field(default=20, ge=2, description="Trials of one generation of nsga2 and nsga3.")


class SchedulerConfig(Frozen):
    """Which trials are stopped early."""

    name: SchedulerName = Field(
        default="asha",
        description="asha stops trials at rungs (arXiv:1810.05934); asha_promotion pauses every trial at a rung and "
        "continues the best; hyperband runs asha with several grace periods (arXiv:1603.06560); median stops what is "
        "below the median of the others; curves stops what will probably not beat the best, by extrapolation; pbt "
        "trains a population whose worst members go on from the best ones' weights (arXiv:1711.09846); none.",
    )
    max_epochs: StrictInt = Field(
        ge=1, description="Epochs of a trial that is not stopped; its lr_schedule spans them.", examples=[50]
    )
    grace_period: StrictInt = Field(default=1, ge=1, description="Epochs before a trial may be stopped.")
    reduction_factor: StrictInt = Field(
        default=4, ge=2, description="Of this many trials one goes on at each rung of asha and hyperband."
    )
    rivals: StrictInt | None = Field(
        default=12,
        ge=2,
        description="asha compares a trial at a rung with as many that came there last, itself included: as the "
        "sampler learns, nearly every new trial beats the first, random ones; null compares with all, as in the paper.",
    )
    revisit: StrictBool = Field(
        default=True,
        description="Whether asha also ends a trial between two rungs, once others that came to the lower one since "
        "have overtaken it: the first to arrive always go on, however poor. The paper decides once.",
    )
    fidelity: FidelityName = Field(
        default="epochs",
        description="What of the images the epochs before the last rung train on: all (epochs), a fraction of the data "
        "(data_fraction), or all at a smaller size (image_size); the share rises at every rung. Validation always "
        "sees all images at full size.",
    )
    lowest_fidelity: StrictFloat = Field(
        default=0.5, gt=0, lt=1, description="That share up to the first rung; for image_size, of the side in pixels."
    )
    min_trials: StrictInt = Field(
        default=5,
        ge=2,
        description="Other trials that must have come as far before median stops one, or must have been trained to "
        "their end before curves does.",
    )
    threshold: StrictFloat = Field(
        default=0.05, gt=0, lt=1, description="curves stops a trial whose chance of beating the best is below this."
    )
    population: StrictInt = Field(default=8, ge=2, description="Members that pbt trains side by side.")
    interval: StrictInt | None = Field(
        default=None,
        ge=1,
        description="Epochs between two comparisons of pbt's members; by default a tenth of max_epochs.",
    )
    quantile: StrictFloat = Field(
        default=0.25, gt=0, le=0.5, description="Share of pbt's members that is replaced each time."
    )
    resample: StrictFloat = Field(
        default=0.25, ge=0, le=1, description="Chance that pbt draws a parameter anew instead of moving it by a fifth."
    )

    @property
    def plan(self) -> Fidelity:
        """What the epochs of every trial train on."""
        rungs = rung_epochs(
            grace_period=self.grace_period, reduction_factor=self.reduction_factor, max_epochs=self.max_epochs
        )
        return Fidelity(name=self.fidelity, lowest=self.lowest_fidelity, rungs=tuple(rungs))
