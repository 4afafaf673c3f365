"""When does an actor begin its next trial? As soon as it knows it, not when Tune's loop has heard that it does."""

from __future__ import annotations

from typing import Any

from ray.train._internal.session import get_session


class EarlyStart:
    """What the class of a trial's actor inherits before Ray's `FunctionTrainable`.

    Tune tells a reused actor its next trial, waits for the answer, and then calls for the first result, which is when
    the training would start. In between its loop may be busy with another trial's proposal, and the actor would wait.
    """

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes over the next trial and begins to train; whether the actor could take it over."""
        taken_over = bool(super().reset_config(new_config))  # type: ignore[misc]
        if taken_over:
            get_session().start()
        return taken_over
