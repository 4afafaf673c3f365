"""Where are the data sets that torchvision decodes itself? CIFAR and MNIST, downloaded where that is allowed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from trainables.config import DataConfig
from trainables.errors import DataError
from trainables.sources import FREE, TEST, Listing, Source, identity_of

# torchvision's class, and the folder it keeps below `root`.
_DATASETS = {
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "cifar100": ("CIFAR100", "cifar-100-python"),
    "mnist": ("MNIST", "MNIST/raw"),
    "fashion_mnist": ("FashionMNIST", "FashionMNIST/raw"),
}


def torchvision_source(config: DataConfig) -> Source:
    """CIFAR-10, CIFAR-100, MNIST or Fashion-MNIST as torchvision keeps them; their test split is the test.

    Raises:
        DataError: if the files are missing and may not, or cannot, be downloaded.
    """
    import torchvision.datasets

    class_name, folder = _DATASETS[config.name]
    dataset = vars(torchvision.datasets)[class_name]
    root = torchvision_root(config)
    files = root / folder
    if config.download and not files.is_dir():
        download(config.name, root, lambda: dataset(root, train=True, download=True))
    if not files.is_dir():
        raise DataError(
            f"{root}: the files of {config.name} are missing, expected {files}; "
            "set task.data.download: true, or put the unpacked files there"
        )
    entries = sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files.iterdir())
    return Source(str(root), identity_of([root, *entries]), None, lambda: _read(config, dataset, root))


def torchvision_root(config: DataConfig) -> Path:
    """The folder below which torchvision keeps a data set; `data` by default."""
    return Path(config.root or "data").expanduser().absolute()


def download(name: str, root: Path, fetch: Callable[[], object]) -> None:
    """Lets torchvision download a data set, once even where several trials of a node want it.

    Raises:
        DataError: if that fails.
    """
    from filelock import FileLock

    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{name}.lock"):
        try:
            fetch()
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{root}: {name} could not be downloaded ({error}); "
                "check the network and the free space, or put the unpacked files there yourself"
            ) from error


def _read(config: DataConfig, dataset: Callable[..., Any], root: Path) -> Listing:
    try:
        parts = [dataset(root, train=train, download=False) for train in (True, False)]
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise DataError(
            f"{root}: the files of {config.name} are incomplete or damaged ({str(error).split('.')[0]}); "
            "delete them and set task.data.download: true, or put intact files there"
        ) from error
    images = np.concatenate([np.asarray(part.data) for part in parts])
    if images.ndim == 3:
        images = images[..., None]
    labels = np.concatenate([np.asarray(part.targets, np.int64) for part in parts])
    given = np.repeat(np.array([FREE, TEST], np.int8), [len(part.targets) for part in parts])
    return Listing(images, labels, tuple(parts[0].classes), given)
