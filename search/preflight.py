"""Can this search run at all? Data and every architecture are tried before Ray starts; and what identifies a run."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import torch

from search.config import SearchConfig
from search.domains import CategoricalDomain
from search.draws import GivenDraw
from search.git_commit import git_commit
from search.limits import excess
from search.measured_costs import MeasuredCosts
from search.redaction import redacted
from search.space import Space
from trainables.augment import check_augment
from trainables.config import TrialConfig
from trainables.data import ImageData, load_data
from trainables.decode import Progress
from trainables.errors import ConfigError, ModelError, VistuneError
from trainables.fusable import find_fusion
from trainables.models import check_model, input_spec
from trainables.splits import Splits, make_splits
from trainables.trial_state import check_labels

# To find a combination that is not forbidden.
_DRAWS = 1000

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
        unfused: with `resources.fused`, why trials of an architecture do not train together; empty where they do.
    """

    data: ImageData
    splits: Splits
    num_parameters: dict[str, int]
    unfused: dict[str, str] = field(default_factory=dict)


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
    for arch in _possible(config, "arch"):
        try:
            num_parameters[arch] = _check_arch(first_trial(config, arch=arch), data)
        except VistuneError as error:
            problems.append(str(error))
    for name, check in (("augment", _check_augment), ("loss", _check_loss), ("sampling", _check_loss)):
        for value in _possible(config, name):
            try:
                check(first_trial(config, **{name: value}), data)
            except ConfigError as error:
                problems.append(str(error))
    if problems:
        raise ModelError("\n".join(dict.fromkeys(problems)))
    _check_batch_sizes(config)
    _check_limits(config, data)
    return Preflight(data=data, splits=splits, num_parameters=num_parameters, unfused=_unfused(config, data))


def _unfused(config: SearchConfig, data: ImageData) -> dict[str, str]:
    if not config.resources.fused:
        return {}
    found = {}
    for arch in _possible(config, "arch"):
        trial = first_trial(config, arch=arch)
        size, in_chans = _input_of(trial, data)
        fusion = find_fusion(trial, num_classes=len(data.class_names), in_chans=in_chans, image_size=size)
        found[arch] = fusion.reason
    return found


def _check_arch(trial: TrialConfig, data: ImageData) -> int:
    """Number of parameters of the trial's network, which takes the images; all its parts must be at hand."""
    size, in_chans = _input_of(trial, data)
    sizes = {trial.fidelity.image_size(epoch, size=size) for epoch in range(trial.max_epochs)}
    return check_model(
        trial,
        num_classes=len(data.class_names),
        in_chans=in_chans,
        image_size=size,
        other_sizes=sorted(sizes - {size}),
    )


def _input_of(trial: TrialConfig, data: ImageData) -> tuple[int, int]:
    """Side in pixels, and channels, of what the trial's network takes."""
    _, image_size, _, in_chans = data.shape
    anything = ([0.5] * in_chans, [0.25] * in_chans)
    return input_spec(trial, data_mean_std=anything, in_chans=in_chans, image_size=image_size).size, in_chans


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


def _possible(config: SearchConfig, name: str) -> list[Any]:
    """The choices of a parameter that are not forbidden whatever the others are."""
    space = config.search_space
    return [value for value in choices(config, name) if _allowed(space, {name: value}) is not None]


def first_trial(config: SearchConfig, **chosen: Any) -> TrialConfig:
    """A trial of the space with some parameters chosen, and of all others the first value of their domain.

    Where that is forbidden, the others are drawn.
    """
    params = _allowed(config.search_space, chosen)
    return config.trial_config(config.search_space.suggest(GivenDraw(chosen)) if params is None else params)


def _allowed(space: Space, chosen: Mapping[str, Any]) -> dict[str, Any] | None:
    """Parameters that are not forbidden, with some of them chosen; None where none are found."""
    return next(space.allowed(chosen, draws=_DRAWS), None)


def describe_run(config: SearchConfig, preflight: Preflight) -> dict[str, Any]:
    """What identifies a run: code, packages, data, seeds, hardware, command."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": redacted(" ".join(sys.argv)),
        "git_commit": git_commit(),
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
        "hardware": describe_hardware(),
        **({"unfused": preflight.unfused} if preflight.unfused else {}),
    }


def describe_hardware() -> dict[str, Any]:
    """This machine."""
    return {
        "machine": platform.machine(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }


def _check_batch_sizes(config: SearchConfig) -> None:
    sizes, space = sorted(choices(config, "batch_size")), config.search_space
    for arch in choices(config, "arch"):
        workers = config.workers_of({"arch": arch})
        for size in (size for size in sizes if size < workers):
            params = _allowed(space, {"arch": arch, "batch_size": size})
            if params is not None and "batch_size" in params:  # which a condition may leave out
                raise ConfigError(
                    f"space.batch_size: {size} images cannot be split over resources.workers: {workers}; "
                    f"use batch sizes of {workers} or more"
                )


def _check_limits(config: SearchConfig, data: ImageData) -> None:
    """Refuses a search in which no architecture keeps to the limits, where nothing else decides about its size."""
    if not config.limits or any(
        name.startswith("cnn_") or name == "input_size" for name in config.search_space.searched
    ):
        return
    costs = MeasuredCosts(config, data)
    reasons = {
        arch: excess(costs.of_trial(first_trial(config, arch=arch)), config.limits)
        for arch in _possible(config, "arch")
    }
    if None not in reasons.values():
        told = "; ".join(f"{arch}: {reason}" for arch, reason in reasons.items())
        raise ConfigError(
            f"limits: no architecture of the space keeps to them ({told}); raise them, or add smaller ones"
        )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
