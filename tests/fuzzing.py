"""How many examples tests with generated input try: few and always the same, or with `make fuzz` many new ones."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_TIMES = int(os.environ.get("VISTUNE_FUZZ", "0"))

# Whether what takes long is to be tried in full.
FUZZES = _TIMES > 0


def examples(count: int) -> settings:
    """So many examples, or VISTUNE_FUZZ times as many. A slow machine is no failure."""
    return settings(
        max_examples=count * max(1, _TIMES),
        derandomize=_TIMES == 0,
        database=None,
        deadline=None,
        # The folder is the same for all examples on purpose: each overwrites its file.
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
