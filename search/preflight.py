"""Can this search run at all? Data and every architecture are tried before Ray starts; and what identifies a run."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from search.config import SearchConfig
from search.domains import CategoricalDomain
from search.space import Space
from trainables.augment import check_augment
from trainables.data import ImageData, Splits, load_data, make_splits
from trainables.errors import ConfigError, ModelError
from trainables.models import check_model

_PACKAGES = (
    "vistune",
    "ray",
    "optuna",
    "torch",
    "torchvision",
    "timm",
    "albumentations",
    "numpy",
    "pydantic",
    "safetensors",
)


@dataclass(frozen=True)
class Preflight:
    """What the checks found.

    Attributes:
        num_parameters: trainable parameters of each architecture in the space.
    """

    data: ImageData
    splits: Splits
    num_parameters: dict[str, int]


def check_search(config: SearchConfig) -> Preflight:
    """Decodes the data (or finds them decoded), divides them, and builds every architecture and augmentation.

    Raises:
        DataError: if the images cannot be used.
        ModelError: if an architecture does not take these images; all such are named.
        ConfigError: if an augmentation pipeline does not build.
    """
    data = load_data(config.task.data)
    splits = make_splits(data, config.task.split)
    sides = {"image_size": data.images.shape[1], "in_chans": data.images.shape[3]}
    num_parameters: dict[str, int] = {}
    problems: list[str] = []
    for arch in choices(config, "arch"):
        trial_config = config.trial_config(_first_params(config, arch=arch))
        try:
            num_parameters[arch] = check_model(trial_config, num_classes=len(data.class_names), **sides)
        except ModelError as error:
            problems.append(str(error))
    for augment in choices(config, "augment"):
        try:
            check_augment(config.trial_config(_first_params(config, augment=augment)), **sides)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ModelError("\n".join(problems))
    _check_batch_sizes(config)
    return Preflight(data=data, splits=splits, num_parameters=num_parameters)


def choices(config: SearchConfig, name: str) -> list[Any]:
    """Every value of a categorical parameter, the ends of a range, or the one value of a fixed or default one."""
    domain = Space(config.space).domains.get(name)
    if domain is None:
        return [getattr(config.trial_config(_first_params(config)), name)]
    if isinstance(domain, CategoricalDomain):
        return list(domain.values)
    return [domain.low, domain.high]


def describe_run(config: SearchConfig, preflight: Preflight) -> dict[str, Any]:
    """What identifies a run: code, packages, data, seeds, hardware, command."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "data": {
            "fingerprint": preflight.data.fingerprint,
            "images": len(preflight.data.labels),
            "train": len(preflight.splits.train),
            "val": len(preflight.splits.val),
            "test": len(preflight.splits.test),
            "classes": list(preflight.data.class_names),
            "shape": list(preflight.data.images.shape[1:]),
        },
        "seeds": {"search_and_training": config.sampler.seed, "split": config.task.split.seed},
        "hardware": {
            "machine": platform.machine(),
            "system": platform.platform(),
            "cpus": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        },
    }


def _first_params(config: SearchConfig, **chosen: Any) -> dict[str, Any]:
    """Some valid parameters of the space, with a few of them chosen."""
    domains = Space(config.space).domains
    first = {name: next(domain.grid(), getattr(domain, "low", None)) for name, domain in domains.items()}
    return {**first, **{name: value for name, value in chosen.items() if name in first}}


def _check_batch_sizes(config: SearchConfig) -> None:
    smallest = min(choices(config, "batch_size"))
    if smallest < config.resources.workers:
        raise ConfigError(
            f"space.batch_size: {smallest} images cannot be split over resources.workers: {config.resources.workers}; "
            f"use batch sizes of {config.resources.workers} or more"
        )


def _git_commit() -> str | None:
    """The commit of vistune's own checkout, with `+changes` where files differ from it."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return commit + "+changes" if git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
