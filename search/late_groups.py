"""When does Ray Tune ask for a placement group? Not for a trial that is about to take over another one's actor."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from ray.air.execution.resources.placement_group import PlacementGroupResourceManager
from ray.air.execution.resources.request import ResourceRequest

# By then a short trial has ended, and its actor goes to the one that waits.
_AFTER_S = 1.0


class LateGroups(PlacementGroupResourceManager):  # type: ignore[misc]
    """Placement groups, as Tune has them by default; on a full cluster requested a second late.

    The trial that is proposed ahead takes the first actor that is free. The group that Tune requests for it is
    cancelled then, which costs a short trial as much as its files do: five messages, and attempts to place it.

    Args:
        slots: how many trials the cluster holds; none is late where it is not given, as when `clear` starts anew.
    """

    def __init__(self, update_interval_s: float = 0.1, *, slots: Callable[[], int] = lambda: sys.maxsize) -> None:
        super().__init__(update_interval_s)
        self._slots = slots
        self._late: list[tuple[float, ResourceRequest]] = []

    def request_resources(self, resource_request: ResourceRequest) -> None:
        """Requests a group, now or later."""
        if len(self._acquired_pgs) < self._slots():
            super().request_resources(resource_request)
        else:
            self._late.append((time.monotonic(), resource_request))

    def cancel_resource_request(self, resource_request: ResourceRequest) -> None:
        """Cancels the request for one group."""
        for index, (_, late) in enumerate(self._late):
            if late == resource_request:
                del self._late[index]
                return
        super().cancel_resource_request(resource_request)

    def has_resources_ready(self, resource_request: ResourceRequest) -> bool:
        """Whether there is a group of this kind; Tune asks at each step of its loop while it waits for one."""
        while self._late and self._is_due(self._late[0][0]):
            super().request_resources(self._late.pop(0)[1])
        return bool(super().has_resources_ready(resource_request))

    def _is_due(self, asked_at: float) -> bool:
        return time.monotonic() - asked_at > _AFTER_S or len(self._acquired_pgs) < self._slots()
