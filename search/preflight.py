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
from search.draws import GivenDraw
from search.limits import Limits
from trainables.augment import check_augment
from trainables.config import TrialConfig
from trainables.data import ImageData, load_data
from trainables.decode import Progress
from trainables.errors import ConfigError, ModelError, VistuneError
from trainables.models import check_model, input_spec
from trainables.splits import Splits, make_splits
from trainables.trial_state import check_labels

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


def check_search(config: SearchConfig, *, progress: Progress | None = None) -> Preflight:
    """Decodes the data (or finds them decoded), divides them, and builds every architecture and augmentation.

    Args:
        progress: called with the images decoded so far and in all, while they are.

    Raises:
        DataError: if the images cannot be used.
        ModelError: if an architecture does not take these images; all such are named.
        ConfigError: if an augmentation pipeline does not build, or metric or loss are not for such labels.
    """
    data = load_data(config.task.data, progress=progress)
    splits = make_splits(data, config.task.split)
    num_parameters: dict[str, int] = {}
    problems: list[str] = []
    for arch in choices(config, "arch"):
        try:
            num_parameters[arch] = _check_arch(first_trial(config, arch=arch), data)
        except VistuneError as error:
            problems.append(str(error))
    for name, check in (("augment", _check_augment), ("loss", _check_loss), ("sampling", _check_loss)):
        for value in choices(config, name):
            try:
                check(first_trial(config, **{name: value}), data)
            except ConfigError as error:
                problems.append(str(error))
    if problems:
        raise ModelError("\n".join(dict.fromkeys(problems)))
    _check_batch_sizes(config)
    _check_limits(config, data)
    return Preflight(data=data, splits=splits, num_parameters=num_parameters)


def _check_arch(trial: TrialConfig, data: ImageData) -> int:
    """Number of parameters of the trial's network, which takes the images; all its parts must be at hand."""
    _, image_size, _, in_chans = data.shape
    anything = ([0.5] * in_chans, [0.25] * in_chans)
    spec = input_spec(trial, data_mean_std=anything, in_chans=in_chans, image_size=image_size)
    sizes = {trial.fidelity.image_size(epoch, size=spec.size) for epoch in range(trial.max_epochs)}
    return check_model(
        trial,
        num_classes=len(data.class_names),
        in_chans=in_chans,
        image_size=spec.size,
        other_sizes=sorted(sizes - {spec.size}),
    )


def _check_augment(trial: TrialConfig, data: ImageData) -> None:
    _, image_size, _, in_chans = data.shape
    check_augment(trial, image_size=image_size, in_chans=in_chans)


def _check_loss(trial: TrialConfig, data: ImageData) -> None:
    check_labels(trial, data.kind)


def choices(config: SearchConfig, name: str) -> list[Any]:
    """Every value of a categorical parameter, the ends of a range, or the one value of a fixed or default one."""
    domain = config.search_space.domains.get(name)
    if domain is None:
        return [getattr(first_trial(config), name)]
    if isinstance(domain, CategoricalDomain):
        return list(domain.values)
    return [domain.low, domain.high]


def first_trial(config: SearchConfig, **chosen: Any) -> TrialConfig:
    """A trial of the space with some parameters chosen, and of all others the first value of their domain."""
    return config.trial_config(config.search_space.suggest(GivenDraw(chosen)))


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
            "shape": list(preflight.data.shape[1:]),
            "labels": preflight.data.kind,
            "loading": preflight.data.loading,
            "skipped": list(preflight.data.skipped),
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


def _check_batch_sizes(config: SearchConfig) -> None:
    smallest = min(choices(config, "batch_size"))
    if smallest < config.resources.workers:
        raise ConfigError(
            f"space.batch_size: {smallest} images cannot be split over resources.workers: {config.resources.workers}; "
            f"use batch sizes of {config.resources.workers} or more"
        )


def _check_limits(config: SearchConfig, data: ImageData) -> None:
    """Refuses a search in which no architecture keeps to the limits, where nothing else decides about its size."""
    if not config.limits or any(
        name.startswith("cnn_") or name == "input_size" for name in config.search_space.searched
    ):
        return
    limits = Limits(config, data)
    reasons = {arch: limits.reason_against_trial(first_trial(config, arch=arch)) for arch in choices(config, "arch")}
    if None not in reasons.values():
        told = "; ".join(f"{arch}: {reason}" for arch, reason in reasons.items())
        raise ConfigError(
            f"limits: no architecture of the space keeps to them ({told}); raise them, or add smaller ones"
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
