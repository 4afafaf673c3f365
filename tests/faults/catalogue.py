"""Which faults are there? Each by its name on the command line, with the search that it strikes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.faults import kills, nodes, storage, trials
from tests.faults.case import Case
from tests.faults.search import SPACES


@dataclass(frozen=True)
class Fault:
    """A fault.

    Attributes:
        words: as the table has it.
        space: of the search that it strikes.
        run: sends the search, lets the fault happen, and waits for the end.
        stored: whether the run lies in an object store.
    """

    words: str
    space: str
    run: Callable[[Case], None]
    stored: bool = False


FAULTS = {
    "none-solo": Fault("none, trials of one worker", "solo", kills.undisturbed),
    "none-mixed": Fault("none, trials of one and of two workers", "mixed", kills.undisturbed),
    "none-long": Fault("none, longer trials of one worker", "long", kills.undisturbed),
    "none-long-mixed": Fault("none, longer trials of one and of two workers", "long-mixed", kills.undisturbed),
    "worker": Fault("kill -9 of a training worker of a group", "mixed", kills.worker),
    "actor": Fault("kill -9 of the actor of a one-worker trial", "solo", kills.actor),
    "group-actor": Fault("kill -9 of a trial's actor, of a group or not", "mixed", kills.actor),
    "controller": Fault("kill -9 of a Train controller", "mixed", kills.controller),
    "node": Fault("kill -9 of a worker node", "mixed", kills.node),
    "two-nodes": Fault("kill -9 of two worker nodes at once", "mixed", kills.two_nodes),
    "driver": Fault("kill -9 of the driver, then resume", "mixed", kills.driver),
    "head": Fault("kill -9 of the head node, then restart and resume", "mixed", kills.head),
    "cut": Fault("node cut off until it is given up, then returned", "mixed", nodes.cut),
    "short-cut": Fault("node cut off for 2 to 6 s", "mixed", nodes.short_cut),
    "added": Fault("node added during the run", "long", nodes.added),
    "drain": Fault("spot notice of 5 s, then the node is gone, trials of one worker", "long", nodes.drain),
    "group-drain": Fault("the same, trials of one and of two workers", "long-mixed", nodes.drain),
    "early-drain": Fault("spot notice of 60 s, but the node is gone after 5 s", "long", nodes.early_drain),
    "none-stored": Fault("none, run in an object store", "mixed", kills.undisturbed, stored=True),
    "stored-node": Fault("kill -9 of a worker node, run in an object store", "mixed", kills.node, stored=True),
    "stored-head": Fault(
        "head node and its disk lost, run in an object store, then restart and resume", "mixed", kills.head, stored=True
    ),
    "full": Fault("disk of the results full, emptied, then resume", "solo", storage.full),
    "read-only": Fault(
        "results read-only after an error of the disk, repaired, then resume", "solo", storage.read_only
    ),
    "slow": Fault("slow disk: writes wait up to 1 s", "solo", storage.slow),
    "unreachable": Fault("storage unreachable for 30 s", "solo", storage.unreachable),
    "truncated": Fault("checkpoint cut short on the disk, its actor killed", "solo", storage.truncated),
    "locked": Fault("study locked by another process for 10 to 20 s", "solo", storage.locked),
    "same-name": Fault("the same search sent and resumed while it runs", "long", storage.same_name),
    "hang": Fault("a trial hangs", "solo", trials.hang),
    "leak": Fault("a trial leaks memory until the kernel kills it", "solo", trials.leak),
    "nan": Fault("a trial diverges to NaN", "solo", trials.nan),
    "loader": Fault("the images under a trial are cut off (SIGBUS)", "solo", trials.loader),
}
REFERENCES = {space: f"none-{space}" for space in SPACES}
