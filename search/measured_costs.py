"""What does a trial's network cost? Measured once for each network, as far as limits and objectives ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from search.config import SearchConfig
from search.resources_config import ResourcesConfig
from trainables.config import TrialConfig
from trainables.data import ImageData
from trainables.static_objectives import static_objectives


class MeasuredCosts:
    """Costs by name, for the section `limits` and the objectives of `task.metric`.

    The latency is taken on this machine: on its GPU where trials have one and it does, else on as many CPU threads as a
    worker has. While trials run, they slow it down.
    """

    def __init__(self, config: SearchConfig, data: ImageData) -> None:
        self._config = config
        self._wanted = tuple(dict.fromkeys([*config.limits, *config.objectives]))
        _, self._image_size, _, self._in_chans = data.shape
        self._num_classes = len(data.class_names)

    def of(self, params: Mapping[str, Any]) -> dict[str, float]:
        """Of a candidate, by its searched parameters."""
        return self.of_trial(self._config.trial_config(params)) if self._wanted else {}

    def of_trial(self, trial: TrialConfig) -> dict[str, float]:
        """Of a whole trial."""
        return static_objectives(
            trial,
            self._wanted,
            num_classes=self._num_classes,
            in_chans=self._in_chans,
            image_size=self._image_size,
            num_threads=max(1, int(self._config.resources.cpus_per_worker)),
            device=_device(self._config.resources),
        )


def _device(resources: ResourcesConfig) -> str:
    return "cuda" if resources.gpus_per_worker > 0 and torch.cuda.is_available() else "cpu"
