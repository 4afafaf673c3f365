"""What if some classes have far more images than others? Weights in the loss, and the order of an epoch."""

from __future__ import annotations

import numpy as np

from trainables.config import TrialConfig
from trainables.errors import ConfigError
from trainables.hyperparameters import Hyperparameters
from trainables.metric_names import LabelKind
from trainables.seeds import Stream, stream_seed


def class_weights(labels: np.ndarray, *, num_classes: int, config: Hyperparameters) -> np.ndarray | None:
    """Weights of the classes in the loss, with mean 1 over the training images; None for class_weights: none.

    The mean keeps the size of the loss, and so the learning rates that suit it. A class without images, and a label
    that all images or none have, get the weight 1.

    Args:
        labels: of the training split: (N,) int64, or (N, num_classes) of 0 and 1 for multi-label data.

    Returns:
        (num_classes,) float64. For multi-label data (2, num_classes): the weights of a label's absence and presence,
        as of two classes; their mean over the training images is 1 for every label.

    Source: effective number, 1 / ((1 - beta^n) / (1 - beta)), arXiv:1901.05555.
    """
    if config.class_weights == "none":
        return None
    if labels.ndim == 1:
        return _mean_one(np.bincount(labels, minlength=num_classes), config)
    present = labels.sum(axis=0, dtype=np.int64)
    counts = np.stack([len(labels) - present, present], axis=1)
    return np.stack([_mean_one(each, config) for each in counts], axis=1)


def _mean_one(counts: np.ndarray, config: Hyperparameters) -> np.ndarray:
    seen = counts > 0
    n = counts[seen].astype(np.float64)
    raw = 1 / n if config.class_weights == "inverse" else (1 - config.effective_beta) / (1 - config.effective_beta**n)
    weights = np.ones(len(counts))
    weights[seen] = raw * (n.sum() / (n * raw).sum())
    return weights


def check_sampling(config: Hyperparameters, kind: LabelKind) -> None:
    """Whether the order of an epoch is defined for such labels.

    Raises:
        ConfigError: naming those that are.
    """
    if kind == "multilabel" and config.sampling == "balanced":
        raise ConfigError(
            "space.sampling: balanced batches need images of one class each, these have several labels or none "
            "(multi-label); use oversample or shuffle"
        )


def epoch_order(labels: np.ndarray, *, config: TrialConfig, epoch: int) -> np.ndarray:
    """Which training images an epoch shows, in order; fixed by seed and epoch alone.

    - shuffle: every image once.
    - oversample: N draws with replacement, every class equally likely. An image of several labels is as likely as one
      of its rarest label would be; images without any count as a class of their own.
    - balanced: each run of min(batch_size, N) images, as the batches are cut, has the same number of every class, or
      one more of some: these take turns, as all classes do where a batch is smaller than their number. The images
      of a class are used up in random order before any comes again.

    Args:
        labels: of the training split: (N,) int64, or (N, num_classes) of 0 and 1 for multi-label data.
        epoch: counted from 0.

    Returns:
        (N,) int64, positions in the training split.

    Raises:
        ConfigError: for balanced batches of multi-label data.
    """
    check_sampling(config, "multilabel" if labels.ndim == 2 else "multiclass")
    rng = np.random.default_rng(stream_seed(config.seed, Stream.ORDER, epoch))
    if config.sampling == "oversample":
        chances = _chances(labels)
        return rng.choice(len(labels), size=len(labels), p=chances / chances.sum())
    if config.sampling == "balanced":
        return _balanced_order(labels, batch_size=min(config.batch_size, len(labels)), rng=rng)
    return rng.permutation(len(labels))


def _chances(labels: np.ndarray) -> np.ndarray:
    """How likely each image is to be drawn, up to a common factor."""
    if labels.ndim == 1:
        chances: np.ndarray = 1 / np.bincount(labels)[labels]
        return chances
    has = labels.astype(bool)
    counts = has.sum(axis=0)
    chances = np.full(len(labels), 1 / max(1, int((~has.any(axis=1)).sum())))
    for label in np.argsort(-counts, kind="stable"):  # the rarest label of an image comes last and stays
        chances[has[:, label]] = 1 / max(1, counts[label])
    return chances


def _balanced_order(labels: np.ndarray, *, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    _, classes = np.unique(labels, return_inverse=True)  # counted from 0, without those that have no images
    sequence = _class_sequence(int(classes.max()) + 1, length=len(labels), batch_size=batch_size, rng=rng)
    order = np.empty(len(labels), np.int64)
    images_of, slots_of = _by_class(classes), _by_class(sequence)
    for images, slots in zip(images_of, slots_of, strict=True):
        rounds = -(-len(slots) // len(images))
        order[slots] = np.concatenate([rng.permutation(images) for _ in range(rounds)])[: len(slots)]
    return order


def _class_sequence(num_classes: int, *, length: int, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """The class of every place in the order, balanced within each batch."""
    everyone = np.arange(num_classes)
    waiting = rng.permutation(num_classes)
    parts = []
    for start in range(0, length, batch_size):
        share, extra = divmod(min(batch_size, length - start), num_classes)
        chosen, waiting = waiting[:extra], waiting[extra:]
        if len(chosen) < extra:  # the next round begins; whoever ended the last one is not in this batch again
            again = rng.permutation(num_classes)
            is_fresh = ~np.isin(again, chosen)
            missing = extra - len(chosen)
            chosen = np.concatenate([chosen, again[is_fresh][:missing]])
            waiting = np.concatenate([again[is_fresh][missing:], again[~is_fresh]])
            rng.shuffle(waiting)
        parts.append(rng.permutation(np.concatenate([np.repeat(everyone, share), chosen])))
    return np.concatenate(parts)


def _by_class(classes: np.ndarray) -> list[np.ndarray]:
    """Positions of each class, from 0 to the highest that occurs."""
    ordered = np.argsort(classes, kind="stable")
    return np.split(ordered, np.cumsum(np.bincount(classes))[:-1])
