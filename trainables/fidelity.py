"""How much of the images does an epoch see? Early epochs may train on a part of them, or on smaller ones."""

from __future__ import annotations

from bisect import bisect_right
from typing import Literal

from pydantic import Field

from trainables.hyperparameters import Frozen

FidelityName = Literal["epochs", "data_fraction", "image_size"]

# Networks halve their maps up to five times; small images are small steps from one size to the next.
_LARGE, _LARGE_STEP, _SMALL_STEP = 128, 32, 4


class Fidelity(Frozen):
    """What of the images the epochs of a trial train on; all trials of a search follow the same plan.

    The share rises in equal steps from `lowest` to 1 after each of `rungs`, the epochs at which trials are compared:
    what is compared was trained alike. Validation sees all of its images, at full size, after every epoch.
    """

    name: FidelityName = Field(default="epochs", description="What grows with the epochs of a trial.")
    lowest: float = Field(default=0.5, gt=0, lt=1, description="Share of the first epochs.")
    rungs: tuple[int, ...] = Field(default=(), description="Epochs, counted from 1, after which the share rises.")

    def share(self, epoch: int) -> float:
        """Share of the images, or of their side, in an epoch counted from 0."""
        if self.name == "epochs" or not self.rungs:
            return 1.0
        passed = bisect_right(self.rungs, epoch)
        return self.lowest + (1 - self.lowest) * passed / len(self.rungs)

    def num_images(self, epoch: int, *, num_images: int) -> int:
        """Training images of an epoch."""
        return max(1, round(self.share(epoch) * num_images)) if self.name == "data_fraction" else num_images

    def image_size(self, epoch: int, *, size: int) -> int:
        """Side in pixels at which an epoch trains, for a network whose own is `size`.

        A multiple of 32 pixels where the network's is 128 or more, of 4 below; the full size is as it is.
        """
        share = self.share(epoch)
        if self.name != "image_size" or share == 1:
            return size
        step = _LARGE_STEP if size >= _LARGE else _SMALL_STEP
        return min(size, max(step, round(share * size / step) * step))
