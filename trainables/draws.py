"""The random numbers of an epoch's augmentation: a row for each slot of its order, whatever the batches."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from trainables.randomness import epoch_stream

# Rows are drawn this many at a time, when the first of them is needed: an epoch of millions of slots then starts at
# once and takes little memory. A multiple of 8, the numbers that one step of the generator's counter gives.
_BLOCK_ROWS = 4096


class Purpose(IntEnum):
    """What the numbers are for; each purpose has a stream of its own, so that none disturbs another."""

    CROP_AND_POLICY = 0
    VARIATION = 1
    ERASING = 2
    NOISE = 3


def purpose_stream(seed: int, epoch: int, purpose: Purpose) -> np.random.Philox:
    """The generator of bits of one purpose: 2**128 steps of the counter that seed and epoch select."""
    bits = epoch_stream(seed, epoch)
    state = bits.state
    state["state"]["counter"][2] = purpose
    bits.state = state
    return bits


class SlotDraws:
    """Uniform numbers in [0, 1), float32, that depend on seed, purpose, epoch and slot only.

    Args:
        seed: of the trial.
        purpose: the stream.
        width: numbers that a slot takes.
        num_slots: of an epoch; more are drawn when asked for.
    """

    def __init__(self, *, seed: int, purpose: Purpose, width: int, num_slots: int) -> None:
        self._seed = seed
        self._purpose = purpose
        self._width = width
        self._block_rows = min(_BLOCK_ROWS, -(-num_slots // 8) * 8)
        self._epoch: int | None = None
        self._blocks: dict[int, np.ndarray] = {}

    def start_epoch(self, epoch: int) -> None:
        """Forgets the numbers of the epoch before."""
        self._epoch = epoch
        self._blocks = {}

    def __call__(self, slots: np.ndarray) -> np.ndarray:
        """(B, width) float32 of (B,) int64 slots; fast where slots come roughly in order."""
        numbers = slots // self._block_rows
        needed = {
            int(number): self._blocks[number] if number in self._blocks else self._draw(int(number))
            for number in np.unique(numbers)
        }
        self._blocks = needed
        draws = np.empty((len(slots), self._width), np.float32)
        for number, block in needed.items():
            mine = numbers == number
            draws[mine] = block[slots[mine] - number * self._block_rows]
        return draws

    def _draw(self, number: int) -> np.ndarray:
        assert self._epoch is not None, "start_epoch comes before the first batch"
        bits = purpose_stream(self._seed, self._epoch, self._purpose)
        bits.advance(number * self._block_rows * self._width // 8)
        return np.random.Generator(bits).random((self._block_rows, self._width), dtype=np.float32)
