"""Which weights does a network start from? Local files and an earlier run's model, made to fit the network."""

from __future__ import annotations

import json
import pickle
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from trainables.architectures import CNN
from trainables.errors import ModelError, first_line

State = dict[str, Tensor]
CONNECT_TIMEOUT_S = 10.0

_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_PREFERRED = ("model.safetensors", "pytorch_model.bin")  # of a folder in the layout of timm and the Hugging Face hub
# How `trainables/exported.py` lays out a model, and in which folder of a run `search/results.py` puts it.
_RUN_FOLDER, _RUN_WEIGHTS, _RUN_DESCRIPTION = "best_model", "model.safetensors", "model.json"
_NUM_SHOWN = 5
_UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    EOFError,
    LookupError,
    AttributeError,
    TypeError,
    pickle.UnpicklingError,
    SafetensorError,
)


@dataclass(frozen=True)
class StartingWeights:
    """Local weights that a network may start from.

    Attributes:
        name: what the configuration calls them.
        description: of an earlier run's model, what `export_model` wrote about it; None for other files.
    """

    name: str
    file: Path
    description: Mapping[str, Any] | None


@dataclass(frozen=True)
class Task:
    """What the network is for.

    Attributes:
        in_chans: channels of its images.
        class_names: in the order of the scores, where they are known.
    """

    arch: str
    num_classes: int
    in_chans: int
    class_names: Sequence[str] | None = None


@dataclass(frozen=True)
class Adaptable:
    """Which parts of a network may differ from the weights that it starts from.

    Attributes:
        heads: modules, or single tensors, whose size is the number of classes.
        auxiliary: modules that only training needs; weights may lack them, or have them for nothing.
        first_convolutions: modules that take the image's channels.
        convert: brings a state dictionary into the network's own names and shapes.
    """

    heads: Sequence[str]
    auxiliary: Sequence[str] = ()
    first_convolutions: Sequence[str] = ()
    convert: Callable[[State, nn.Module], State] = lambda state, _: state


def find_weights(path: str, *, arch: str) -> StartingWeights:
    """The file that `weights: PATH` means: itself, the one in a folder, or the best model of an earlier run.

    Raises:
        ModelError: if there is none, or more than one, or the run's model is of another architecture.
    """
    given = Path(path)
    if given.is_file():
        if given.suffix not in _SUFFIXES:
            raise ModelError(f"weights: {path} is not of a known kind; use a file that ends in {', '.join(_SUFFIXES)}")
        return StartingWeights(path, given, None)
    if not given.is_dir():
        raise ModelError(f"weights: {path} does not exist; name a weights file, a folder with one, or results/RUN")
    for folder in (given / _RUN_FOLDER, given):
        if (folder / _RUN_DESCRIPTION).is_file():
            return _run_weights(path, folder, arch=arch)
    files = [given / name for name in _PREFERRED if (given / name).is_file()][:1]
    files = files or sorted(file for file in given.iterdir() if file.suffix in _SUFFIXES)
    if len(files) != 1:
        found = f"{len(files)} ({_listed([file.name for file in files])})" if files else "none"
        raise ModelError(
            f"weights: {path} must hold one weights file or a finished run's best model, found {found}; name a file"
        )
    return StartingWeights(path, files[0], None)


def read_weights(file: Path) -> State:
    """The tensors of a file; no code in it is run.

    A state dictionary may lie under `state_dict`, `model` or their averages `state_dict_ema`, `model_ema`, and its
    names may begin with what `DistributedDataParallel` and `torch.compile` put there.

    Raises:
        ModelError: if the file is damaged, or holds anything else.
    """
    from timm.models import load_state_dict

    try:
        with torch.device("cpu"):
            found = load_state_dict(str(file), device="cpu", weights_only=True)
    except Exception as error:  # what a reader of changed bytes raises may be anything: struct.error, IndexError, ...
        # torch's own text goes on to say how all would be loaded, which is not done here.
        refused = "Weights only load failed" in str(error)
        why = "it holds Python objects, which could run code" if refused else first_line(error)
        raise ModelError(
            f"weights: {file} cannot be read as weights ({why}); it may be damaged, or hold more than "
            "tensors: save a state dictionary, torch.save(model.state_dict(), PATH)"
        ) from error
    state = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    if not state:
        raise ModelError(
            f"weights: {file} holds no tensors by name, found {_listed(found) or 'nothing'}; save a state dictionary, "
            "torch.save(model.state_dict(), PATH)"
        )
    return state


def load_starting_weights(model: nn.Module, start: StartingWeights, *, task: Task, adaptable: Adaptable) -> None:
    """Gives a network the local weights. On the meta device it is only checked that they fit.

    Heads whose shape differs only by the number of classes, and heads that the file lacks, keep what they were
    initialised with; so do those of an earlier run whose class names were others.

    Raises:
        ModelError: if the file cannot be read or does not fit; names up to 5 tensors of each kind.
    """
    state = read_weights(start.file)
    known = None if start.description is None else list(start.description["class_names"])
    if known is not None and task.class_names is not None and known != list(task.class_names):
        state = {name: tensor for name, tensor in state.items() if not _within(name, adaptable.heads)}
    load_fitting(model, state, source=f"weights: {start.name}", task=task, adaptable=adaptable)


def load_fitting(model: nn.Module, state: State, *, source: str, task: Task, adaptable: Adaptable) -> None:
    """Loads a state dictionary, heads and first convolutions adapted; all else must be there and fit.

    Raises:
        ModelError: beginning with `source`.
    """
    try:
        with torch.device("cpu"):
            state = dict(adaptable.convert(dict(state), model))
    except _UNREADABLE as error:
        raise ModelError(
            f"{source} are not weights of {task.arch} ({first_line(error)}); name the architecture they were saved from"
        ) from error
    own: State = model.state_dict()
    for name in adaptable.first_convolutions:
        _adapt_channels(state, own, f"{name}.weight", in_chans=task.in_chans)
    if not any(name in own and own[name].shape == tensor.shape for name, tensor in state.items()):
        raise ModelError(
            f"{source}: none of the {len(state)} tensors ({_listed(state)}) fits {task.arch} ({_listed(own)}); "
            f"{_remedy(task.arch)}"
        )
    _keep_own(state, own, adaptable=adaptable, num_classes=task.num_classes)
    _check_fit(state, own, source=source, arch=task.arch)
    if any(tensor.is_meta for tensor in own.values()):
        return
    fitted = OrderedDict((name, state.get(name, tensor)) for name, tensor in own.items())
    # Modules read their version from it, and take what has none for older than it is.
    fitted._metadata = own._metadata  # type: ignore[attr-defined]
    model.load_state_dict(fitted)


@contextmanager
def connect_timeout() -> Iterator[None]:
    """torch.hub opens addresses without a limit of its own: a silent network would hold it for minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECT_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _run_weights(path: str, folder: Path, *, arch: str) -> StartingWeights:
    file = folder / _RUN_DESCRIPTION
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
        trained, _ = str(description["trial"]["arch"]), description["class_names"]
        _ = {key: description["input"][key] for key in ("size", "mean", "std", "interpolation")}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"weights: {file} does not describe a model ({first_line(error)}); name a weights file") from (
            error
        )
    # A tag names weights, not another network.
    if trained.partition(".")[0] != arch.partition(".")[0]:
        raise ModelError(f"weights: {path} is a model of {trained}, but arch is {arch}; set arch: {trained}")
    return StartingWeights(path, folder / _RUN_WEIGHTS, description)


def _adapt_channels(state: State, own: State, name: str, *, in_chans: int) -> None:
    from timm.models import adapt_input_conv

    if name not in state or name not in own or state[name].shape == own[name].shape or state[name].ndim != 4:
        return
    given, wanted = state[name].shape[1], own[name].shape[1]
    # Stems that fold neighbouring pixels into channels take a multiple of the image's channels.
    base_chans, rest = divmod(given * in_chans, wanted)
    if rest == 0:
        try:
            state[name] = adapt_input_conv(in_chans, state[name], base_chans=base_chans)
        except (NotImplementedError, AssertionError):
            return  # reported with the other tensors that do not fit


def _keep_own(state: State, own: State, *, adaptable: Adaptable, num_classes: int) -> None:
    """Drops from `state`, or takes from `own`, what may differ between the two."""
    for part in adaptable.auxiliary:
        names = [name for name in own if _within(name, [part])]
        if not names or not any(name in state for name in names):
            for name in [name for name in state if _within(name, [part])]:
                del state[name]
            state.update({name: own[name] for name in names})
    for part in adaptable.heads:
        names = [name for name in own if _within(name, [part])]
        differ = [name for name in names if name in state and state[name].shape != own[name].shape]
        absent = not any(name in state for name in names)
        if absent or (differ and all(_differs_by_classes(state[name], own[name], num_classes) for name in differ)):
            for name in [name for name in state if _within(name, [part])]:
                del state[name]
            state.update({name: own[name] for name in names})
    # Counts of batches seen: older files have none, and only a momentum of None would read them.
    state.update({name: own[name] for name in own if name.endswith("num_batches_tracked") and name not in state})


def _differs_by_classes(found: Tensor, own: Tensor, num_classes: int) -> bool:
    if found.ndim != own.ndim:
        return False
    sides = zip(found.shape, own.shape, strict=True)
    return all(theirs == ours or ours == num_classes for theirs, ours in sides)


def _check_fit(state: State, own: State, *, source: str, arch: str) -> None:
    misshapen = [
        f"{name} {tuple(state[name].shape)}, wanted {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    ]
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    kinds = {"missing": missing, "not known to it": unexpected, "of another shape": misshapen}
    problems = [f"{len(names)} {kind} ({_listed(names)})" for kind, names in kinds.items() if names]
    if not problems:
        return
    raise ModelError(f"{source}: the tensors do not fit {arch}: {'; '.join(problems)}; {_remedy(arch)}")


def _remedy(arch: str) -> str:
    if arch == CNN:
        return "give the cnn_ fields that they were trained with"
    return "set arch to the architecture they were saved from"


def _within(name: str, parts: Sequence[str]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    shown = ", ".join(list(map(str, names))[:_NUM_SHOWN])
    return f"{shown}, ..." if len(names) > _NUM_SHOWN else shown
