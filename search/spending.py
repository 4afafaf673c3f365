"""What have the trials of a search used of its budget? Epochs and device-hours; others count trials and time."""

from __future__ import annotations

from search.budget_config import BudgetConfig
from search.config import ResourcesConfig


class Spending:
    """Adds up what trials train, over all sessions of a run.

    Attributes:
        epochs: trained so far.
        train_s: seconds of training and validation so far, of all trials together.
    """

    def __init__(self, budget: BudgetConfig, resources: ResourcesConfig) -> None:
        self._budget = budget
        self._devices = devices_of(resources)
        self.epochs = 0
        self.train_s = 0.0

    @property
    def device_hours(self) -> float:
        return self.train_s * self._devices / 3600

    def add(self, *, epochs: int, train_s: float) -> None:
        self.epochs += epochs
        self.train_s += train_s

    @property
    def exhausted(self) -> str | None:
        """Which limit has been reached; None while there is some left of each."""
        if self._budget.epochs is not None and self.epochs >= self._budget.epochs:
            return f"the budget of {self._budget.epochs} epochs is used up"
        if self._budget.device_hours is not None and self.device_hours >= self._budget.device_hours:
            return f"the budget of {self._budget.device_hours:g} device-hours is used up"
        return None


def devices_of(resources: ResourcesConfig) -> float:
    """How many devices a trial holds: GPUs, or CPU cores where it has none."""
    return resources.workers * (resources.gpus_per_worker or resources.cpus_per_worker)
