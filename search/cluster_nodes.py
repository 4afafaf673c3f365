"""How many workers does a cluster hold, now and when it has grown? From its nodes, as Ray counts their resources."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search.resources_config import ResourcesConfig
from trainables.errors import ConfigError

Amounts = Mapping[str, float]

_ACCELERATOR = "accelerator_type:"
_HEAD = "node:__internal_head__"
_TOKEN_AMOUNT = 0.001  # of a node's accelerator type, of which Ray gives every node one


@dataclass(frozen=True)
class NodeType:
    """A kind of node of which an autoscaler may start some.

    Attributes:
        most: how many there may be at a time; None for no limit.
    """

    resources: Amounts
    most: int | None


@dataclass(frozen=True)
class Cluster:
    """The nodes of a cluster.

    Attributes:
        nodes: resources of each node that takes trials now.
        growth: what an autoscaler may start; None where nothing scales the cluster, empty where something does, but
            does not say how far.
        most_nodes: how many it may start of all kinds together; None for no limit.
    """

    nodes: Sequence[Amounts]
    growth: Sequence[NodeType] | None = None
    most_nodes: int | None = None

    def slots(self, needs: Amounts) -> int:
        """How many workers it holds now."""
        return sum(slots_on(node, needs) for node in self.nodes)

    def most_slots(self, needs: Amounts) -> float:
        """How many workers it holds when it has grown as far as it can."""
        if self.growth is None:
            return self.slots(needs)
        if not self.growth:
            return math.inf
        # The head is none of those that an autoscaler starts, and takes trials where it has what they need.
        most: float = sum(slots_on(node, needs) for node in self.nodes if _HEAD in node)
        left = math.inf if self.most_nodes is None else self.most_nodes
        kinds = [
            (slots_on(kind.resources, needs), math.inf if kind.most is None else kind.most) for kind in self.growth
        ]
        for slots, nodes in sorted(kinds, reverse=True):
            started = min(left, nodes)
            most += slots * started if slots else 0
            if started < math.inf:
                left -= started
        return max(self.slots(needs), most)


def worker_resources(resources: ResourcesConfig) -> dict[str, float]:
    """What the process of one worker asks of the cluster, as Ray counts it."""
    # Ray counts in parts of 1/10,000.
    shared = {"CPU": resources.cpus_per_worker * resources.share, "GPU": resources.gpus_per_worker * resources.share}
    needs = {kind: math.floor(amount * 1e4) / 1e4 for kind, amount in shared.items()}
    if resources.accelerator is not None:
        needs[_ACCELERATOR + resources.accelerator] = _TOKEN_AMOUNT
    return {kind: amount for kind, amount in needs.items() if amount > 0}


def accelerator_of(resources: ResourcesConfig) -> dict[str, float]:
    """What a node has, as Ray counts it, that is of the kind which a search asks for; empty where it asks for none."""
    return {} if resources.accelerator is None else {_ACCELERATOR + resources.accelerator: 1.0}


def slots_on(node: Amounts, needs: Amounts) -> int:
    """How many workers fit on a node."""
    return min(_times(kind, node.get(kind, 0.0), amount) for kind, amount in needs.items())


def _times(kind: str, there: float, amount: float) -> int:
    if kind == "GPU" and amount < 1:  # a worker's share is of one GPU
        return int(there) * int(1 / amount + 1e-6)
    return int(there / amount + 1e-6)


def check_fits(resources: ResourcesConfig, sizes: Sequence[int], cluster: Cluster) -> str | None:
    """Whether every trial of a search fits on a cluster.

    Args:
        sizes: numbers of workers that a trial may have.

    Returns:
        None where all fit now; where the cluster has to grow for some, what it has to grow to.

    Raises:
        ConfigError: if a trial never fits; with what it needs, what there is, and what to change.
    """
    needs, size = worker_resources(resources), max(sizes)
    if cluster.slots(needs) >= size:
        return None
    asked = f"one trial needs {_workers(size)} of {_words(needs)}"
    if cluster.most_slots(needs) >= size:
        return f"{asked}, the cluster holds {cluster.slots(needs)} now: waiting for it to grow"
    raise ConfigError(f"resources: {asked}; {_shortage(resources, needs, cluster)}")


def _shortage(resources: ResourcesConfig, needs: Amounts, cluster: Cluster) -> str:
    """What there is, and what to change."""
    kinds = [*cluster.nodes, *(kind.resources for kind in cluster.growth or ())]
    elsewhere = "give --address of a larger cluster"
    if not kinds:
        return f"no node takes trials: all are being drained, or gone; {elsewhere}"
    holds = int(cluster.most_slots(needs))
    grown = ", when it has grown as far as it may," if cluster.growth else ""
    if holds:
        remedy = f"lower resources.workers to {holds} or less, or {elsewhere}"
        return f"the cluster{grown} holds {holds} of them on {_nodes(len(cluster.nodes))}; {remedy}"
    if resources.accelerator is not None and not any(_ACCELERATOR + resources.accelerator in kind for kind in kinds):
        names = sorted({name.removeprefix(_ACCELERATOR) for kind in kinds for name in kind if _ACCELERATOR in name})
        there = ", ".join(names) or "none"
        return f"no node{grown} has that accelerator, found {there}; correct resources.accelerator, or {elsewhere}"
    largest = max(kinds, key=lambda node: tuple(node.get(kind, 0.0) for kind in ("GPU", "CPU") if kind in needs))
    lacking = [kind for kind in ("CPU", "GPU") if _times(kind, largest.get(kind, 0.0), needs.get(kind, 1e-9)) < 1]
    fields = " and ".join(f"resources.{kind.lower()}s_per_worker" for kind in lacking if kind in needs)
    there = _words({kind: largest.get(kind, 0.0) for kind in ("CPU", "GPU") if kind in needs})
    whole = {kind: sum(node.get(kind, 0.0) for node in cluster.nodes) for kind in ("CPU", "GPU") if kind in needs}
    return (
        f"the largest node{grown} has {there} ({_nodes(len(cluster.nodes))} with {_words(whole)} in all); "
        f"lower {fields or 'what a worker asks for'}, or {elsewhere}"
    )


def _words(amounts: Amounts) -> str:
    """Amounts as a person writes them."""
    return " and ".join(
        f"{kind.removeprefix(_ACCELERATOR)}" if kind.startswith(_ACCELERATOR) else f"{amount:g} {kind}"
        for kind, amount in amounts.items()
    )


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"
