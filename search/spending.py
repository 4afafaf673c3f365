"""What have the trials of a search used of its budget? Epochs and device-hours; others count trials and time."""

from __future__ import annotations

from search.budget_config import BudgetConfig
from search.resources_config import ResourcesConfig


class Spending:
    """Adds up what trials train, over all sessions of a run.

    Attributes:
        epochs: trained so far.
        worker_s: seconds of training and validation so far, of all workers of all trials together.
    """

    def __init__(self, budget: BudgetConfig, resources: ResourcesConfig) -> None:
        self._budget = budget
        self._devices_of_worker = devices_of_worker(resources)
        self.epochs = 0
        self.worker_s = 0.0

    @property
    def device_hours(self) -> float:
        return self.worker_s * self._devices_of_worker / 3600

    def add(self, *, epochs: int, train_s: float, workers: int) -> None:
        """Adds what a trial of so many workers has trained."""
        self.epochs += epochs
        self.worker_s += train_s * workers

    @property
    def exhausted(self) -> str | None:
        """Which limit has been reached; None while there is some left of each."""
        if self._budget.epochs is not None and self.epochs >= self._budget.epochs:
            return f"the budget of {self._budget.epochs} epochs is used up"
        if self._budget.device_hours is not None and self.device_hours >= self._budget.device_hours:
            return f"the budget of {self._budget.device_hours:g} device-hours is used up"
        return None


def devices_of_worker(resources: ResourcesConfig) -> float:
    """How many devices a worker of a trial holds: GPUs, or CPU cores where it has none."""
    return resources.devices_per_worker * resources.share
