"""The random stream of an epoch's augmentation: a counter-based generator, so that any place in it costs the same."""

from __future__ import annotations

import numpy as np


def epoch_stream(seed: int, epoch: int) -> np.random.Philox:
    """A generator of bits for one seed and epoch, each pair a stream of its own.

    Source: Philox4x64, doi:10.1145/2063384.2063405; its key is the pair.
    """
    return np.random.Philox(key=np.array([seed % 2**64, epoch], np.uint64))
