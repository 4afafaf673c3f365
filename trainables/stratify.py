"""How are images divided so that every part has its share of every class or label?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def stratify_labels(labels: np.ndarray, *, fractions: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """A part for every image: 1, 2... have their fraction of each label as nearly as possible, 0 has the rest.

    The label that fewest images are left of goes first, and each of its images to the part that most lacks it; so
    rare labels are spread before common ones fill the parts up. A label with as many images as there are parts is
    asked for once in each; that can fail only where rarer labels have taken its images.

    Args:
        labels: (N, C) uint8 of 0 and 1.
        fractions: of parts 1, 2...; their sum is below 1.

    Returns:
        (N,) int64.

    Source: Sechidis et al. 2011, doi:10.1007/978-3-642-23808-6_10, Algorithm 1.
    """
    shares = np.array([1 - sum(fractions), *fractions])
    room = shares * len(labels)  # images that each part still lacks
    lacks = _wanted(labels.sum(axis=0, dtype=np.int64), shares)  # and those of each label
    left = labels.sum(axis=0, dtype=np.int64)
    parts = np.full(len(labels), -1, np.int64)
    order = rng.permutation(len(labels))
    rows_of = [order[labels[order, label] > 0] for label in range(labels.shape[1])]
    while left.any():
        fewest = left[left > 0].min()
        label = rng.choice(np.flatnonzero(left == fewest))
        for row in rows_of[label][parts[rows_of[label]] < 0].tolist():
            part = _most_in_need(lacks[:, label], room, rng)
            parts[row] = part
            room[part] -= 1
            lacks[part] -= labels[row]
            left -= labels[row]
    for row in order[parts[order] < 0].tolist():  # images without any label
        parts[row] = part = _most_in_need(room, room, rng)
        room[part] -= 1
    return parts


def nested_order(labels: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """An order of the images whose every beginning has each class in nearly its share.

    Args:
        labels: (N,) int64 classes, or (N, C) of 0 and 1 for several labels, which are shuffled only.

    Returns:
        (N,) int64 positions.
    """
    if labels.ndim == 2:
        return rng.permutation(len(labels))
    places = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        places[rng.permutation(members)] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.argsort(places, kind="stable")


def _wanted(counts: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(P, C) images of each label that each part should get: at least one where there are enough for all parts."""
    wanted = np.outer(shares, counts)
    wanted[1:] = np.where(counts >= len(shares), np.maximum(wanted[1:], 1), wanted[1:])
    wanted[0] = counts - wanted[1:].sum(axis=0)
    return wanted


def _most_in_need(lacks: np.ndarray, room: np.ndarray, rng: np.random.Generator) -> int:
    """The part with the largest lack; among equals that with the most room, then any."""
    best = np.flatnonzero(lacks == lacks.max())
    if len(best) > 1:
        best = best[room[best] == room[best].max()]
    return int(best[0] if len(best) == 1 else rng.choice(best))
