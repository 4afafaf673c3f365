"""Do all nodes of a cluster see what they must share? The run's folder and the images, asked before any trial."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.cluster_state import staying_nodes
from search.halt import Halt
from search.results import RunPaths, write_text
from trainables.config import DataConfig
from trainables.data import load_data
from trainables.errors import ConfigError, DataError, VistuneError
from trainables.mirrors import require_private, shown
from trainables.object_store import read_shared, remove, size_of

# Starting a worker process on a node takes seconds, unpacking the working directory there may take some more.
_ANSWER_S = 120.0
_SHOWN_NODES = 5


def check_nodes(
    paths: RunPaths, data: DataConfig, *, fingerprint: str, halt: Halt, note: Callable[[str], None]
) -> None:
    """Has every node but the driver's read the run's folder, write into it, and make the images ready.

    Each node thereby decodes the images into its own cache, once, before the first trial. Nodes that come later are
    not asked; a trial on one that lacks the run's folder or the images ends the search, which says so
    (`search.trial_place`).

    Args:
        fingerprint: of the driver's images; those of the nodes must have the same.

    Raises:
        ConfigError: naming the nodes that do not share the run's folder.
        DataError: naming the nodes that lack the images, or have others.
    """
    nodes = _other_nodes()
    if not nodes:
        return
    note(f"asking {len(nodes)} other node(s) for the results folder")
    _raise(ConfigError, _problems_of_folder(paths, nodes, halt=halt))
    note(f"having {len(nodes)} other node(s) read the images")
    answers = _ask(load_fingerprint, nodes, lambda _: (data,), halt=halt, timeout_s=None)
    problems = {node: problem_of_data(found, fingerprint=fingerprint) for node, found in answers.items()}
    _raise(DataError, {nodes[node]: problem for node, problem in problems.items() if problem is not None})
    note("")


def answer_in(folder: str, token: str, node: str) -> str | None:
    """On a node: reads the driver's token in a folder and leaves an answer beside it; else says why not."""
    probe = Path(folder)
    try:
        require_private(probe)
        found = read_shared(probe / "driver")
    except ConfigError as error:
        return f"has no safe place for its copy ({error})"
    except OSError as error:
        return f"does not see it ({error.strerror or error})"
    if found != token:
        return "has another folder of this name"
    try:
        write_text(probe / node, token)
    except OSError as error:
        return f"cannot write into it ({error.strerror})"
    return None


def load_fingerprint(data: DataConfig) -> tuple[str | None, str | None]:
    """On a node: makes the images ready; their fingerprint, or what is wrong with them."""
    try:
        return load_data(data).fingerprint, None
    except (VistuneError, OSError) as error:
        return None, str(error)


def problem_of_data(found: Any, *, fingerprint: str) -> str | None:
    """What is wrong with a node's images, if anything."""
    if isinstance(found, str):
        return found
    theirs, problem = found
    if problem is not None:
        return str(problem)
    if theirs != fingerprint:
        return f"the images are not the driver's (fingerprint {theirs}, the driver has {fingerprint}); copy them anew"
    return None


def _problems_of_folder(paths: RunPaths, nodes: Mapping[str, str], *, halt: Halt) -> dict[str, str]:
    probe = paths.root / f".nodes-{uuid.uuid4().hex[:8]}"
    token = uuid.uuid4().hex
    write_text(probe / "driver", token)
    try:
        answers = _ask(answer_in, nodes, lambda node: (str(probe), token, node), halt=halt, timeout_s=_ANSWER_S)
        for node, answer in answers.items():
            if answer is None and size_of(probe / node) is None:
                answers[node] = "wrote into it what is not to be seen here"
    finally:
        for name in ("driver", *nodes):
            remove(probe / name)
        probe.rmdir()
    remedy = "mount one folder at the same path on all nodes, or give --storage-path such a folder"
    return {nodes[node]: f"{shown(paths.root)}: {what}; {remedy}" for node, what in answers.items() if what is not None}


def _other_nodes() -> dict[str, str]:
    """Id and name of each living node on which the driver does not run."""
    own = ray.get_runtime_context().get_node_id()
    return {
        node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        for node in staying_nodes()
        if node["NodeID"] != own
    }


def _ask(
    function: Callable[..., Any],
    nodes: Mapping[str, str],
    arguments: Callable[[str], tuple[Any, ...]],
    *,
    halt: Halt,
    timeout_s: float | None,
) -> dict[str, Any]:
    """What a function returns on each node; a sentence where it returns nothing. Nodes that leave are left out."""
    remote = ray.remote(num_cpus=0, max_retries=0)(function)
    waiting = {
        remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            *arguments(node)
        ): node
        for node in nodes
    }
    answers: dict[str, Any] = {}
    waited_s = 0.0
    while waiting and not halt.requested and (timeout_s is None or waited_s < timeout_s):
        done, _ = ray.wait(list(waiting), timeout=1.0)
        waited_s += 0.0 if done else 1.0
        for task in done:
            node = waiting.pop(task)
            try:
                answers[node] = ray.get(task)
            except ray.exceptions.RayError as error:
                answers[node] = f"could not be asked: {str(error).strip().splitlines()[-1]}"
    for task, node in waiting.items():
        ray.cancel(task, force=True)
        if not halt.requested:
            answers[node] = f"did not answer within {timeout_s:g} s"
    alive = _other_nodes()
    return {node: answer for node, answer in answers.items() if node in alive}


def _raise(kind: type[VistuneError], problems: Mapping[str, str]) -> None:
    if not problems:
        return
    lines = [f"node {name}: {problem}" for name, problem in list(problems.items())[:_SHOWN_NODES]]
    if len(problems) > _SHOWN_NODES:
        lines.append(f"and {len(problems) - _SHOWN_NODES} more nodes")
    raise kind("\n".join(lines))
