"""Does a candidate keep to the limits of the search? Decided before it trains, from its network alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from search.config import ResourcesConfig, SearchConfig
from trainables.config import TrialConfig
from trainables.data import ImageData
from trainables.static_objectives import static_objectives


class Limits:
    """Measures networks, each once, and compares them with the section `limits`.

    The latency is taken on this machine: on its GPU where trials have one and it does, else on as many CPU threads as a
    worker has. While trials run, they slow it down.
    """

    def __init__(self, config: SearchConfig, data: ImageData) -> None:
        self._config = config
        _, self._image_size, _, self._in_chans = data.shape
        self._num_classes = len(data.class_names)

    def reason_against(self, params: Mapping[str, Any]) -> str | None:
        """Which limit a candidate exceeds, and by how much; None when it keeps to all."""
        return self.reason_against_trial(self._config.trial_config(params)) if self._config.limits else None

    def reason_against_trial(self, trial: TrialConfig) -> str | None:
        """The same for a whole trial."""
        limits = self._config.limits
        found = static_objectives(
            trial,
            tuple(limits),
            num_classes=self._num_classes,
            in_chans=self._in_chans,
            image_size=self._image_size,
            num_threads=max(1, int(self._config.resources.cpus_per_worker)),
            device=_device(self._config.resources),
        )
        over = [name for name in limits if found[name] > limits[name]]
        return (
            "; ".join(f"{name} {_shown(found[name])} is above the limit {_shown(limits[name])}" for name in over)
            or None
        )


def _device(resources: ResourcesConfig) -> str:
    return "cuda" if resources.gpus_per_worker > 0 and torch.cuda.is_available() else "cpu"


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
