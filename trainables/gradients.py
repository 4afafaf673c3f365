"""How do the workers of a trial share gradients? Summed in a few large buckets once a step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor

_BUCKET_BYTES = 25 * 2**20  # as in DistributedDataParallel


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Sums the gradients of all ranks of the default process group, in place.

    Not DistributedDataParallel, which reduces within backward: there a rank that runs out of memory would leave the
    others waiting for ever. Here the ranks first agree that all have their gradients.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    pending = []
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        pending.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
    for bucket, flat, work in pending:
        work.wait()
        start = 0
        for gradient in bucket:
            gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """Consecutive gradients of one type, together up to the size of a bucket."""
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        num_bytes = gradient.numel() * gradient.element_size()
        if bucket and (size + num_bytes > _BUCKET_BYTES or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += num_bytes
    if bucket:
        yield bucket
