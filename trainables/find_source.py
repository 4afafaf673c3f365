"""Which data set does a configuration mean? One function for each name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version

import numpy as np

from trainables.config import DataConfig, DatasetName
from trainables.folder_source import folder_source
from trainables.huggingface_source import huggingface_source
from trainables.imagenet_source import imagenet_source
from trainables.inaturalist_source import inaturalist_source
from trainables.manifests import csv_source
from trainables.sources import FREE, Listing, Source, identity_of
from trainables.torchvision_source import torchvision_source


def find_source(config: DataConfig) -> Source:
    """The configured data set.

    Raises:
        DataError: if it is missing, or not laid out as documented; all that is wrong is said at once.
    """
    return _SOURCES[config.name](config)


def _digits_source(_: DataConfig) -> Source:
    return Source("digits", identity_of(["scikit-learn", version("scikit-learn")]), None, _read_digits)


def _read_digits() -> Listing:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int64)
    names = tuple(str(name) for name in digits.target_names)
    return Listing(images, labels, names, np.full(len(labels), FREE, np.int8))


_SOURCES: Mapping[DatasetName, Callable[[DataConfig], Source]] = {
    "digits": _digits_source,
    "folder": folder_source,
    "imagenet": imagenet_source,
    "csv": csv_source,
    "huggingface": huggingface_source,
    "inaturalist": inaturalist_source,
    "cifar10": torchvision_source,
    "cifar100": torchvision_source,
    "mnist": torchvision_source,
    "fashion_mnist": torchvision_source,
}
