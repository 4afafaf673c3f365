"""At which epochs are trials compared? Free of Ray, so that linter and reports count as the schedulers do."""

from __future__ import annotations


def rung_epochs(*, grace_period: int, reduction_factor: int, max_epochs: int) -> list[int]:
    """Epochs at which trials are compared: grace_period times powers of the reduction factor, below max_epochs.

    Counted in integers: flooring a ratio of logarithms loses rungs (log(243) / log(3) is 4.999...).

    >>> rung_epochs(grace_period=1, reduction_factor=3, max_epochs=243)
    [1, 3, 9, 27, 81]
    """
    rungs, epoch = [], grace_period
    while epoch < max_epochs:
        rungs.append(epoch)
        epoch *= reduction_factor
    return rungs
