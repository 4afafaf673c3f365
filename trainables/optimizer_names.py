"""Which optimizer names exist? Answered from timm's installed source, without importing it or torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from trainables.errors import ConfigError
from trainables.nearest import nearest

BUILTIN_OPTIMIZERS = ("sgd", "adamw", "rmsprop", "lion")
TIMM_PREFIX = "timm/"

_SEVERAL_PASSES = "takes several passes over a batch for one step, and the training loop makes one"
_FOREIGN = {"lbfgs": _SEVERAL_PASSES, "sam": _SEVERAL_PASSES, "asam": _SEVERAL_PASSES}


@dataclass(frozen=True)
class _Entry:
    """An optimizer of timm's registry: whether it takes `momentum`, and why it cannot be used, where it cannot."""

    has_momentum: bool
    refusal: str | None


@cache
def known_optimizers() -> frozenset[str]:
    """Every name that a trial can use: our own, and timm's as timm/NAME."""
    usable = (name for name, entry in _timm_entries().items() if entry.refusal is None)
    return frozenset(BUILTIN_OPTIMIZERS) | {TIMM_PREFIX + name for name in usable}


def check_optimizer(name: str) -> None:
    """Accept the name of an optimizer that a trial can use.

    Raises:
        ConfigError: if there is none of that name, or the training loop cannot drive it; the message says what to
            write instead.
    """
    if name in known_optimizers():
        return
    bare = name.removeprefix(TIMM_PREFIX)
    refusal = _refusal(bare)
    if refusal is not None:
        raise ConfigError(f"optimizer {name!r} {refusal}; use one of {', '.join(BUILTIN_OPTIMIZERS)}")
    if TIMM_PREFIX + bare in known_optimizers():
        raise ConfigError(f"{name!r} is one of timm's optimizers; write {TIMM_PREFIX}{bare}")
    matches = _nearest(name)
    hint = f"nearest: {', '.join(matches)}" if matches else f"write {', '.join(BUILTIN_OPTIMIZERS)} or timm/NAME"
    raise ConfigError(f"unknown optimizer {name!r}; {hint}")


def uses_momentum(name: str) -> bool:
    """Whether `momentum` means something to an optimizer; false for names that do not exist."""
    if name in BUILTIN_OPTIMIZERS:
        return name in ("sgd", "rmsprop")
    entry = _timm_entries().get(name.removeprefix(TIMM_PREFIX))
    return name.startswith(TIMM_PREFIX) and entry is not None and entry.has_momentum


def _nearest(name: str) -> list[str]:
    """Known names like this one; our own first, unless it is timm's that are asked for."""
    bare = name.removeprefix(TIMM_PREFIX)
    theirs = [known.removeprefix(TIMM_PREFIX) for known in sorted(known_optimizers()) if known.startswith(TIMM_PREFIX)]
    ours = [] if name.startswith(TIMM_PREFIX) else nearest(bare, BUILTIN_OPTIMIZERS)
    # Compared without the prefix, which would make all of timm's look alike.
    return ours or [TIMM_PREFIX + match for match in nearest(bare, theirs)]


def _refusal(bare: str) -> str | None:
    if bare.startswith("lookahead"):
        return "wraps another optimizer and hides its parameter groups, which fine-tuning extends"
    if bare in _FOREIGN:
        return _FOREIGN[bare]
    entry = _timm_entries().get(bare)
    return None if entry is None else entry.refusal


@cache
def _timm_entries() -> dict[str, _Entry]:
    """timm's registry by name, read from the calls that fill it; empty when timm is not installed."""
    spec = find_spec("timm")  # a top-level name: nothing is imported
    if spec is None or spec.submodule_search_locations is None:
        return {}
    factory = Path(next(iter(spec.submodule_search_locations)), "optim", "_optim_factory.py")
    calls = [node for node in ast.walk(ast.parse(factory.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    entries = dict(_registered(calls))
    return entries | {alias: entries[target] for alias, target in _aliases(calls) if target in entries}


def _registered(calls: list[ast.Call]) -> Iterator[tuple[str, _Entry]]:
    for call in calls:
        if not isinstance(call.func, ast.Name) or call.func.id != "OptimInfo":
            continue
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        given |= dict(zip(("name", "opt_class"), call.args, strict=False))
        name = given.get("name")
        if isinstance(name, ast.Constant):
            yield str(name.value), _Entry(_is_true(given.get("has_momentum")), _why_not(given))


def _aliases(calls: list[ast.Call]) -> Iterator[tuple[str, str]]:
    for call in calls:
        if isinstance(call.func, ast.Attribute) and call.func.attr == "register_alias" and len(call.args) == 2:
            alias, target = call.args
            if isinstance(alias, ast.Constant) and isinstance(target, ast.Constant):
                yield str(alias.value), str(target.value)


def _why_not(given: dict[str | None, ast.expr]) -> str | None:
    if _is_true(given.get("second_order")):
        return "needs second derivatives, which the training loop does not compute"
    optimizer = given.get("opt_class")
    if isinstance(optimizer, ast.Constant):  # named by a string: imported from another package when it is built
        return f"needs the package {str(optimizer.value).partition('.')[0]}, which vistune does not use"
    if isinstance(optimizer, ast.Name) and optimizer.id == "Kron":
        return "compiles its steps and draws from torch's global random state, so that workers would drift apart"
    return None


def _is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True
