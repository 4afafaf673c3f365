"""Where does CMA-ES go on? From its state in the study, which is read without running code, or from earlier runs."""

from __future__ import annotations

import io
import logging
import pickle
from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import CmaEsSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from search.sampler_views import complete_part
from trainables.errors import first_line

# The best tenth of as many trials of earlier runs is a trial.
_WARM_START = 10
# What a pickled optimizer consists of.
_PARTS = {
    ("cmaes._cma", "CMA"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
}

_log = logging.getLogger(__name__)


class WarmCmaEs(CmaEsSampler):
    """CMA-ES that begins where the best tenth of the trials of earlier runs lies, or else in the middle of the space.

    Optuna's takes them only where they have the very parameters that it searches; here they are reduced to these.

    Source: WS-CMA-ES, arXiv:2012.06932.
    """

    def __init__(self, earlier: Sequence[FrozenTrial], *, seed: int, startup_trials: int) -> None:
        super().__init__(seed=seed, n_startup_trials=startup_trials, warn_independent_sampling=False)
        self._earlier = earlier

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        fitting = [
            complete_part(each, search_space) for each in self._earlier if search_space.keys() <= each.params.keys()
        ]
        self._source_trials = fitting if len(fitting) >= _WARM_START else None
        return super().sample_relative(study, trial, search_space)

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> Any:
        """The newest of Optuna's, which would run any code that somebody wrote into the study."""
        key = self._attr_key_optimizer
        for trial in reversed(completed_trials):
            parts = {name: text for name, text in trial.system_attrs.items() if name.startswith(key)}
            if not parts:
                continue
            try:
                return _Optimizers(io.BytesIO(bytes.fromhex(self._concat_optimizer_attrs(parts)))).load()
            except Exception as error:  # damaged bytes raise almost anything
                _log.warning("the state of CMA-ES in trial %d is passed over: %s", trial.number, first_line(error))
        return None


class _Optimizers(pickle.Unpickler):
    """Reads CMA-ES optimizers and the arrays in them, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PARTS:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of an optimizer")
        return super().find_class(module, name)
