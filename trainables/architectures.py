"""Which architecture names exist, and which take what? Read from installed sources, without importing libraries."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from trainables import keras_names
from trainables.errors import ConfigError
from trainables.nearest import nearest

SMALL_CNN = "small_cnn"
CNN = "cnn"
OWN = frozenset({SMALL_CNN, CNN})
TORCHVISION_PREFIX = "torchvision/"
KERAS_PREFIX = "keras/"

_TIMM_MODEL = re.compile(r"@register_model\s*\ndef (\w+)\(")
_TORCHVISION_MODEL = re.compile(r"@register_model\(\)\s*\n(?:@.*\n)*def (\w+)\(")


@cache
def known_architectures() -> frozenset[str]:
    """Every name that a trial can build: small_cnn, cnn, timm's models, torchvision/NAME and keras/NAME.

    Importing timm and torchvision takes seconds; scanning the files that register their models takes
    a fraction of a second, so that a mistyped name is reported at once.
    """
    return OWN | _timm_names() | _prefixed(TORCHVISION_PREFIX) | _prefixed(KERAS_PREFIX)


def check_architecture(name: str) -> None:
    """Accept the name of an architecture that can be built, with or without one of timm's weight tags.

    Raises:
        ConfigError: if there is no such architecture or tag; the message names the nearest that exist.
    """
    if name in known_architectures():
        return
    for prefix in (TORCHVISION_PREFIX, KERAS_PREFIX):
        if name.startswith(prefix):
            raise ConfigError(_unknown(name, _prefixed(prefix)))
    model, dot, tag = name.partition(".")
    if dot and model in _timm_names():
        _check_tag(model, tag)
        return
    for prefix, library in ((TORCHVISION_PREFIX, "torchvision"), (KERAS_PREFIX, "keras")):
        if prefix + model in _prefixed(prefix):
            raise ConfigError(f"{name!r} is not in timm but in {library}; write {prefix}{model}")
    raise ConfigError(_unknown(model, known_architectures()))


@cache
def takes_drop_path(name: str) -> bool:
    """Whether an architecture offers stochastic depth; False for names that do not exist.

    For torchvision: the file that registers it has stochastic depth. For timm: a class that the model's function
    builds, by way of other functions of timm's, is constructed with `drop_path_rate`.
    """
    if name.startswith(TORCHVISION_PREFIX):
        function = name.removeprefix(TORCHVISION_PREFIX)
        files = _sources("torchvision").values()
        return any("StochasticDepth(" in text and function in _TORCHVISION_MODEL.findall(text) for text in files)
    if name.startswith(KERAS_PREFIX):
        return keras_names.takes_drop_path(name.removeprefix(KERAS_PREFIX))
    function = name.partition(".")[0]
    texts = _sources("timm")
    homes = [module for module, text in texts.items() if f"def {function}(" in text]
    homes = [module for module in homes if function in _TIMM_MODEL.findall(texts[module])]
    return any(_constructed_with(place, "drop_path_rate") for home in homes for place in _classes_built(home, function))


def _check_tag(model: str, tag: str) -> None:
    pattern = rf"""['"]{re.escape(model)}\.([\w.-]+)['"]"""
    tags = sorted({found for text in _sources("timm").values() for found in re.findall(pattern, text)})
    if tag in tags:
        return
    if not tags:
        raise ConfigError(f"timm has no weight tags for {model}, found tag {tag!r}; write {model}")
    listed = ", ".join(f"{model}.{known}" for known in tags)
    raise ConfigError(f"timm's {model} has no weights tagged {tag!r}; write {model} or one of {listed}")


def _unknown(name: str, known: frozenset[str]) -> str:
    # A torchvision name typed without its prefix should still find its neighbours.
    matches = nearest(name, sorted(known))
    for prefix in (TORCHVISION_PREFIX, KERAS_PREFIX):
        names = sorted(each.removeprefix(prefix) for each in _prefixed(prefix))
        matches = matches or [prefix + match for match in nearest(name, names)]
    if matches:
        return f"unknown architecture {name!r}; nearest: {', '.join(matches)}"
    return (
        f"unknown architecture {name!r}; write {SMALL_CNN} or {CNN}, the name of a timm model such as resnet18, "
        f"{TORCHVISION_PREFIX}NAME or {KERAS_PREFIX}NAME"
    )


@cache
def _timm_names() -> frozenset[str]:
    return frozenset(name for text in _sources("timm").values() for name in _TIMM_MODEL.findall(text))


@cache
def _prefixed(prefix: str) -> frozenset[str]:
    if prefix == KERAS_PREFIX:
        return frozenset(prefix + name for name in keras_names.known_names())
    texts = _sources("torchvision").values()
    return frozenset(prefix + name for text in texts for name in _TORCHVISION_MODEL.findall(text))


@cache
def _sources(package: str) -> dict[str, str]:
    """The text of each module directly in PACKAGE/models, by module name; empty when it is not installed."""
    spec = find_spec(package)  # a top-level name: nothing is imported
    if spec is None or spec.submodule_search_locations is None:
        return {}
    files = [file for folder in spec.submodule_search_locations for file in Path(folder, "models").glob("*.py")]
    return {file.stem: file.read_text(encoding="utf-8") for file in sorted(files)}


_Place = tuple[str, str]  # a module and a name in it


@dataclass(frozen=True)
class _Module:
    """The top level of a module of timm's: its functions and classes, and what it imports from its neighbours."""

    functions: dict[str, ast.FunctionDef]
    classes: dict[str, ast.ClassDef]
    imports: dict[str, _Place]


@cache
def _parsed(module: str) -> _Module:
    nodes = ast.parse(_sources("timm").get(module, "")).body
    imports: dict[str, _Place] = {}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            home = node.module if node.level == 1 else node.module.removeprefix("timm.models.")
            # Modules of timm's machinery (_builder) define no architectures; all of it is reachable from them.
            if home in _sources("timm") and not home.startswith("_"):
                imports |= {alias.asname or alias.name: (home, alias.name) for alias in node.names}
    return _Module(
        functions={node.name: node for node in nodes if isinstance(node, ast.FunctionDef)},
        classes={node.name: node for node in nodes if isinstance(node, ast.ClassDef)},
        imports=imports,
    )


def _classes_built(module: str, function: str, seen: frozenset[_Place] = frozenset()) -> Iterator[_Place]:
    """Classes named in a function, or in a function that is named in it."""
    if (module, function) in seen:
        return
    for node in ast.walk(_parsed(module).functions[function]):
        if isinstance(node, ast.Name):
            home, name = _parsed(module).imports.get(node.id, (module, node.id))
            if name in _parsed(home).classes:
                yield home, name
            elif name in _parsed(home).functions:
                yield from _classes_built(home, name, seen | {(module, function)})


@cache
def _constructed_with(place: _Place, parameter: str) -> bool:
    """Whether a class's constructor, or the one that it inherits or passes unknown arguments on to, takes it."""
    module, name = _parsed(place[0]).imports.get(place[1], place)
    node = _parsed(module).classes.get(name)
    if node is None:
        return False
    for init in node.body:
        if isinstance(init, ast.FunctionDef) and init.name == "__init__":
            if parameter in (argument.arg for argument in (*init.args.args, *init.args.kwonlyargs)):
                return True
            if init.args.kwarg is None:
                return False
    bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
    return any(_constructed_with((module, base), parameter) for base in bases)
