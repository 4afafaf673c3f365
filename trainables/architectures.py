"""Which architecture names exist? Answered from the libraries' installed sources, without importing them."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from trainables.errors import ConfigError
from trainables.nearest import nearest

SMALL_CNN = "small_cnn"
TORCHVISION_PREFIX = "torchvision/"

_TIMM_MODEL = re.compile(r"@register_model\s*\ndef (\w+)\(")
_TORCHVISION_MODEL = re.compile(r"@register_model\(\)\s*\n(?:@.*\n)*def (\w+)\(")


@cache
def known_architectures() -> frozenset[str]:
    """Every name that a trial can build: small_cnn, timm's models, and torchvision's as torchvision/NAME.

    Importing timm and torchvision takes seconds; scanning the files that register their models takes
    a fraction of a second, so that a mistyped name is reported at once.
    """
    return frozenset({SMALL_CNN} | _timm_names() | {TORCHVISION_PREFIX + name for name in _torchvision_names()})


def check_architecture(name: str) -> None:
    """Accept the name of an architecture that can be built, with or without one of timm's weight tags.

    Raises:
        ConfigError: if there is no such architecture or tag; the message names the nearest that exist.
    """
    if name in known_architectures():
        return
    if name.startswith(TORCHVISION_PREFIX):
        raise ConfigError(_unknown(name, frozenset(TORCHVISION_PREFIX + known for known in _torchvision_names())))
    model, dot, tag = name.partition(".")
    if dot and model in _timm_names():
        _check_tag(model, tag)
        return
    if model in _torchvision_names():
        raise ConfigError(f"{name!r} is not in timm but in torchvision; write {TORCHVISION_PREFIX}{model}")
    raise ConfigError(_unknown(model, known_architectures()))


def _check_tag(model: str, tag: str) -> None:
    tags = sorted(set(re.findall(rf"""['"]{re.escape(model)}\.([\w.-]+)['"]""", _timm_source())))
    if tag in tags:
        return
    if not tags:
        raise ConfigError(f"timm has no weight tags for {model}, found tag {tag!r}; write {model}")
    listed = ", ".join(f"{model}.{known}" for known in tags)
    raise ConfigError(f"timm's {model} has no weights tagged {tag!r}; write {model} or one of {listed}")


def _unknown(name: str, known: frozenset[str]) -> str:
    # A torchvision name typed without its prefix should still find its neighbours.
    matches = nearest(name, sorted(known))
    matches = matches or [TORCHVISION_PREFIX + match for match in nearest(name, sorted(_torchvision_names()))]
    if matches:
        return f"unknown architecture {name!r}; nearest: {', '.join(matches)}"
    return (
        f"unknown architecture {name!r}; write {SMALL_CNN}, the name of a timm model such as resnet18, "
        f"or {TORCHVISION_PREFIX}NAME"
    )


@cache
def _timm_names() -> frozenset[str]:
    return frozenset(_TIMM_MODEL.findall(_timm_source()))


@cache
def _torchvision_names() -> frozenset[str]:
    return frozenset(_TORCHVISION_MODEL.findall(_model_sources("torchvision")))


@cache
def _timm_source() -> str:
    return _model_sources("timm")


def _model_sources(package: str) -> str:
    """The text of all modules directly in PACKAGE/models; empty when the package is not installed."""
    spec = find_spec(package)  # a top-level name: nothing is imported
    if spec is None or spec.submodule_search_locations is None:
        return ""
    files = [file for folder in spec.submodule_search_locations for file in Path(folder, "models").glob("*.py")]
    return "\n".join(file.read_text(encoding="utf-8") for file in sorted(files))
