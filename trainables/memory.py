"""How many images fit into a worker's memory at once? Recognises exhaustion, and searches for what fits."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch

from trainables.errors import OutOfMemoryError

# torch raises plain RuntimeErrors where an allocation fails outside CUDA's caching allocator.
# cuDNN says that it finds no engine or algorithm where it gets no memory for any.
_SIGNS = (
    "unable to find an engine",
    "unable to find a valid cudnn algorithm",
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "alloc_failed",
)
# oneDNN says no more than this when it gets no memory; it is taken for that only where memory is limited.
_ONEDNN_SIGN = "could not create a"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of a GPU or of the machine, is exhausted; ours says so too."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError | OutOfMemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    text = str(error).lower()
    return any(sign in text for sign in _SIGNS) or (_ONEDNN_SIGN in text and memory_is_limited(torch.device("cpu")))


def memory_is_limited(device: torch.device) -> bool:
    """Whether running out of memory raises an error here: on a GPU, and under a limit of the process.

    Elsewhere the system lends a process more than there is, and ends it when that is used.
    """
    if device.type != "cpu":
        return True
    try:
        import resource
    except ImportError:  # not on Windows
        return False
    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    return any(limit != resource.RLIM_INFINITY for limit in limits)


def release_memory(device: torch.device) -> None:
    """Gives back what an attempt that failed has left; call it outside the handler of its error, which holds it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def fewest_parts(share: int, *, fits: Callable[[int], bool]) -> int | None:
    """Into how many parts a share of images must be cut so that each fits; None when single images do not.

    Args:
        share: images of a worker, at least 1.
        fits: whether a micro-batch of so many images fits.

    Returns:
        The smallest number found by doubling and then halving the gap.
    """
    too_few, parts = 0, 1
    while not fits(-(-share // parts)):
        if parts >= share:
            return None
        too_few, parts = parts, min(2 * parts, share)
    while parts - too_few > 1:
        middle = (too_few + parts) // 2
        if fits(-(-share // middle)):
            parts = middle
        else:
            too_few = middle
    return parts
