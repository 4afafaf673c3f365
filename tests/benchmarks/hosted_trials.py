"""How does Tune drive trials that train nothing? Few processes answer for many actors, everything else is Ray's own.

Tune's controller, its actor manager, placement groups, object references and `ray.wait` are the real ones; only the
process behind each actor is shared, so that thousands of trials run at a time on a machine that could not hold as many
processes. What is not seen so is the network, and many nodes' worth of Ray's own processes.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.actor import ActorClass
from ray.tune.execution import tune_controller


class Host:
    """The process behind many actors; an async actor of Ray.

    Args:
        epochs: of a trial.
        every_s: seconds between two reports of a trial; 0 reports at once.
    """

    def __init__(self, *, epochs: int, every_s: float) -> None:
        self._epochs = epochs
        self._every_s = every_s
        self._trials: dict[int, dict[str, Any]] = {}
        self._due: dict[int, float] = {}
        self._epoch: dict[int, int] = {}

    async def reset(self, actor: int, config: dict[str, Any], **options: Any) -> bool:
        """What Tune calls before an actor's next trial; the first comes by the constructor."""
        del options
        self._trials[actor], self._epoch[actor] = config, 0
        # Spread over the first interval, as trials that began at different times are.
        self._due.setdefault(actor, time.time() + self._every_s * ((actor * 0.618) % 1.0) - self._every_s)
        return True

    async def train(self, actor: int) -> dict[str, Any]:
        """The next epoch's result."""
        self._due[actor] = max(self._due[actor] + self._every_s, time.time() - self._every_s)
        await asyncio.sleep(max(0.0, self._due[actor] - time.time()))
        self._epoch[actor] += 1
        return _result(self._trials[actor], self._epoch[actor], epochs=self._epochs)

    async def answer(self, actor: int, method: str) -> Any:
        """Everything else that Tune asks an actor."""
        return {} if method == "get_auto_filled_metrics" else actor


def _result(config: dict[str, Any], epoch: int, *, epochs: int) -> dict[str, Any]:
    """What a training would have reported; good parameters are near 0.01 for lr, and luck has its part."""
    params = config["params"]
    luck = ((config["number"] + 1) * 0.6180339887) % 1.0
    quality = 0.9 - 0.1 * abs(math.log10(params.get("lr", 0.01)) + 2) + 0.02 * luck
    value = quality * (1 - math.exp(-epoch))
    now = time.time()
    return {
        "epoch": epoch,
        "train_loss": 1 - value,
        "train_top1": value,
        "lr": 0.01,
        "images_per_s": 1000.0,
        "train_s": 0.04,
        "val_s": 0.01,
        "micro_batch_size": 32,
        "val_loss": 1 - value,
        "val_top1": value,
        "score": value,
        "best_epoch": epoch,
        "done": epoch == epochs,
        "reported_at": now,
        # What Tune adds to the result of an actor.
        "training_iteration": epoch,
        "time_this_iter_s": 0.05,
        "time_total_s": 0.05 * epoch,
        "time_since_restore": 0.05 * epoch,
        "iterations_since_restore": epoch,
        "timestamp": int(now),
        "date": "2000-01-01_00-00-00",
        "pid": 1,
        "hostname": "simulated",
        "node_ip": "127.0.0.1",
        "config": config,
    }


class _Method:
    def __init__(self, host: Any, actor: int, name: str) -> None:
        self._host, self._actor, self._name = host, actor, name

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        if self._name in ("train", "reset"):
            return getattr(self._host, self._name).remote(self._actor, *args, **kwargs)
        return self._host.answer.remote(self._actor, self._name)


class _Handle:
    """Stands for the handle of a trial's actor."""

    def __init__(self, host: Any, actor: int) -> None:
        self._host, self._actor = host, actor

    def __getattr__(self, name: str) -> _Method:
        return _Method(self._host, self._actor, name)


class _HostedClass(ActorClass):  # type: ignore[misc]
    """Stands for the class of a trial's actor: its instances are entries in a host."""

    def __init__(self, hosts: list[Any]) -> None:  # the parent's refuses
        self._hosts = hosts
        self._count = 0

    def options(self, **options: Any) -> _HostedClass:
        del options
        return self

    def remote(self, *args: Any, **kwargs: Any) -> _Handle:
        del args
        host = self._hosts[self._count % len(self._hosts)]
        host.reset.remote(self._count, kwargs["config"])
        self._count += 1
        return _Handle(host, self._count - 1)


@contextmanager
def hosted(*, hosts: int, epochs: int, every_s: float) -> Iterator[None]:
    """Has the trials of a search that is started inside run in a few processes. Needs a running Ray."""
    cls = ray.remote(Host).options(num_cpus=0, max_concurrency=10_000)
    actors = [cls.remote(epochs=epochs, every_s=every_s) for _ in range(hosts)]
    hosted_class = _HostedClass(actors)
    get, kill = tune_controller._ActorClassCache.get, ray.kill
    tune_controller._ActorClassCache.get = lambda *_: hosted_class  # type: ignore[method-assign]
    # At the end Tune kills those that have not answered within 5 s, of thousands most; here there is nothing to kill.
    ray.kill = lambda actor, **options: None if isinstance(actor, _Handle) else kill(actor, **options)
    try:
        yield
    finally:
        tune_controller._ActorClassCache.get, ray.kill = get, kill  # type: ignore[method-assign]
        for actor in actors:
            ray.kill(actor)
