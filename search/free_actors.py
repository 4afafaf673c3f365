"""What becomes of an actor whose trial has ended? It is kept for the next one, as long as that may soon come."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

from ray.tune.utils.object_cache import _ObjectCache

# To start another process and import torch in it takes about as long.
_KEPT_S = 10.0


class FreeActors(_ObjectCache):  # type: ignore[misc]
    """Ray Tune's actors without a trial; all are kept for a while.

    Tune keeps as many as trials wait for one, or one. When two trials end before the next is proposed, and the more
    when the ends of many are handled together, it stops all actors but one and starts others for the next trials.
    """

    def __init__(self, may_keep_one: bool = True) -> None:
        super().__init__(may_keep_one)
        self._free_since: dict[Any, float] = {}

    def cache_object(self, key: Any, obj: Any) -> bool:
        """Keeps an actor; always."""
        self._cached_objects[key].append(obj)
        self._num_cached_objects += 1
        self._free_since[obj] = time.monotonic()
        return True

    def pop_cached_object(self, key: Any) -> Any:
        """The actor that is free for longest, which is then kept no more; None without one."""
        actor = super().pop_cached_object(key)
        self._free_since.pop(actor, None)
        return actor

    def flush_cached_objects(self, force_all: bool = False) -> Generator[Any, None, None]:
        """Those that have been free for too long while no trial waits, or all; they are kept no more."""
        for key, actors in self._cached_objects.items():
            wanted = 0 if force_all else self._max_num_objects[key]
            while len(actors) > wanted and (force_all or self._is_stale(actors[0])):
                yield self.pop_cached_object(key)

    def _is_stale(self, actor: Any) -> bool:
        return time.monotonic() - self._free_since[actor] > _KEPT_S
