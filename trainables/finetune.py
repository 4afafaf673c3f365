"""Which parts of a network train? Stages from the input to the classifier, frozen and unfrozen as a whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

from torch import nn
from torch.nn import Parameter

from trainables.config import TrialConfig
from trainables.errors import ModelError

Parameters = dict[str, Parameter]

# Below this many stages, not counting the classifier, a container is opened and its children are the stages.
_FEWEST_BODY_STAGES = 4
_AUXILIARY = re.compile(r"(^|\.)aux", re.IGNORECASE)  # of GoogLeNet, Inception v3 and VOLO


def model_stages(model: nn.Module, arch: str) -> list[tuple[str, ...]]:
    """Names of the parameters that can train, in stages from the stem to the classifier.

    The last stage is the classifier alone, auxiliary classifiers included. The others are what the network declares as
    `stages`, else timm's own groups of layers, else its blocks in the order in which they were registered. A stage
    without any matrix, such as a normalisation layer, joins the one before it. Parameters that the architecture itself
    keeps fixed are in no stage: call this before anything is frozen.

    Returns:
        Two stages or more for any network with a body; together each trainable parameter exactly once.

    Raises:
        ModelError: if no classifier can be found in it.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    head = _head(model, parameters)
    if not head:
        raise ModelError(f"arch: {arch} has no layer that could be its classifier; choose another architecture")
    body = {name: parameter for name, parameter in parameters.items() if name not in head}
    find = _timm_groups if hasattr(model, "group_matcher") else _declared_groups
    groups = find(model, body) or _block_groups(body)
    return [*_joined(groups, body), tuple(name for name in parameters if name in head)]


def num_trainable_stages(config: TrialConfig, num_stages: int, *, epoch: int) -> int:
    """How many stages, counted from the classifier, train in an epoch counted from 0.

    Source: progressive is the gradual unfreezing of arXiv:1801.06146.
    """
    num = {
        "full": num_stages,
        "head": 1,
        "last_stages": 1 + config.finetune_stages,
        "progressive": 1 + epoch // config.unfreeze_epochs,
    }[config.finetune]
    return min(num, num_stages)


def set_trainable(model: nn.Module, stages: Sequence[Sequence[str]], num: int) -> None:
    """Lets the last `num` stages train and freezes the others; parameters in no stage stay as they are."""
    first = len(stages) - num
    trains = {name: position >= first for position, stage in enumerate(stages) for name in stage}
    for name, parameter in model.named_parameters():
        if name in trains:
            parameter.requires_grad_(trains[name])


def train_mode(model: nn.Module) -> None:
    """Training mode for what trains, evaluation mode for what is frozen.

    A module none of whose parameters train is a fixed function: its normalisation keeps its running statistics, and
    its dropout and stochastic depth are off. Their noise would only blur the features, as the layers that make them
    cannot learn from it, and the classifier would be trained on other features than it is validated on. A normalisation
    layer without parameters goes with the layer before it.
    """
    model.train()
    _rest_frozen(model, before=None)


# --- stages ---


def _head(model: nn.Module, parameters: Parameters) -> set[str]:
    """Names of the classifier's parameters: of the one that the network names, else of the last layer with a matrix."""
    auxiliary = {name for name in parameters if _AUXILIARY.search(name)}
    return auxiliary | (_named_head(model, parameters) or _last_layer(parameters, without=auxiliary))


def _named_head(model: nn.Module, parameters: Parameters) -> set[str]:
    declared = getattr(model, "stages", None)
    if isinstance(declared, tuple):
        return set(declared[-1]) & set(parameters)
    get_classifier: Callable[[], Any] | None = getattr(model, "get_classifier", None)
    if get_classifier is None:
        return set()
    found = get_classifier()
    modules = found if isinstance(found, tuple | list) else (found,)
    owned = {id(parameter) for module in modules for parameter in module.parameters()}
    return {name for name, parameter in parameters.items() if id(parameter) in owned}


def _last_layer(parameters: Parameters, *, without: set[str]) -> set[str]:
    layers = [_layer(name) for name, each in parameters.items() if _is_matrix(each) and name not in without]
    return {name for name in parameters if layers and _layer(name) == layers[-1]}


def _timm_groups(model: nn.Module, body: Parameters) -> list[list[str]]:
    """timm's own layer groups; none where the model has no coarse ones."""
    from timm.models import group_parameters

    group_matcher: Callable[..., Any] = model.group_matcher  # type: ignore[assignment]
    try:
        groups = group_parameters(model, group_matcher(coarse=True))
    except AssertionError:  # RDNet: "coarse grouping is not implemented"
        return []
    return [[name for name in names if name in body] for _, names in sorted(groups.items())]


def _declared_groups(model: nn.Module, body: Parameters) -> list[list[str]]:
    """What the network calls its `stages`: names of parameters, or a sequence of modules with others around it."""
    declared = getattr(model, "stages", None)
    if isinstance(declared, nn.Sequential | nn.ModuleList):
        by_module = groupby(body, key=lambda name: name.split(".")[: 2 if name.startswith("stages.") else 1])
        return [list(names) for _, names in by_module]
    if isinstance(declared, tuple):
        return [[name for name in names if name in body] for names in declared]
    return []


def _block_groups(body: Parameters) -> list[list[str]]:
    """Groups by the top-level modules; the largest are opened until there are enough."""
    groups = [list(body)]
    while len(_joined(groups, body)) < _FEWEST_BODY_STAGES:
        by_size = sorted(range(len(groups)), key=lambda at: -sum(body[name].numel() for name in groups[at]))
        opened = next(((at, parts) for at in by_size if len(parts := _children(groups[at])) > 1), None)
        if opened is None:
            break
        at, parts = opened
        groups[at : at + 1] = parts
    return groups


def _children(names: list[str]) -> list[list[str]]:
    """Names split by the children of the innermost module that holds them all; its own parameters come first."""
    paths = [name.split(".")[:-1] for name in names]
    depth = next((at for at, parts in enumerate(zip(*paths, strict=False)) if len(set(parts)) > 1), None)
    depth = min(map(len, paths), default=0) if depth is None else depth
    return [list(part) for _, part in groupby(names, key=lambda name: name.split(".")[:-1][: depth + 1])]


def _joined(groups: Iterable[Sequence[str]], body: Parameters) -> list[tuple[str, ...]]:
    """Groups without a layer of their own (norms, tokens, position embeddings) joined to the one before, or after."""
    stages: list[tuple[str, ...]] = []
    waiting: tuple[str, ...] = ()
    for group in groups:
        names = waiting + tuple(group)
        if any(_is_matrix(body[name]) and not _is_embedding(name) for name in names):
            stages.append(names)
            waiting = ()
        elif stages:
            stages[-1] += names
        else:
            waiting = names
    return [*stages, waiting] if waiting else stages


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _is_matrix(parameter: Parameter) -> bool:
    """Whether it mixes channels; tokens, (1, 1, C), and scales of channels, (C, 1, 1), do not."""
    return parameter.ndim > 1 and (parameter.ndim != 3 or parameter.numel() > max(parameter.shape))


def _is_embedding(name: str) -> bool:
    return name.endswith(("pos_embed", "pos_embedding", "_token"))


# --- modes ---


def _rest_frozen(module: nn.Module, *, before: bool | None) -> bool | None:
    """Puts frozen descendants into evaluation mode.

    Args:
        before: whether the last layer with parameters before this module trains; None where there is none.

    Returns:
        The same for what comes after the module.
    """
    own = [parameter.requires_grad for parameter in module.parameters(recurse=False)]
    before = any(own) if own else before
    for child in module.children():
        flags = [parameter.requires_grad for parameter in child.parameters()]
        if flags and not any(flags):
            child.eval()
            before = False
        elif not flags and before is False and _keeps_statistics(child):
            child.eval()
        else:
            before = _rest_frozen(child, before=before)
    return before


def _keeps_statistics(module: nn.Module) -> bool:
    return any(name.startswith("running_") for name, _ in module.named_buffers(recurse=False))
