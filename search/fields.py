"""Every field of a space file as a Markdown page. `python -m search.fields > spaces/README.md` keeps it up to date."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from search.algorithm_config import SamplerConfig, SchedulerConfig
from search.budget_config import BudgetConfig, FinalConfig, KeepConfig
from search.config import SearchConfig, TaskConfig
from search.domain_options import Prior, Scaling
from search.domains import CategoricalDomain, FloatDomain, IntDomain
from search.matching import Between
from search.resources_config import ResourcesConfig
from search.start_from import EarlierRun
from trainables.conditions import CONDITIONS
from trainables.config import DataConfig, SplitConfig
from trainables.hyperparameters import Hyperparameters
from trainables.metric_names import METRIC_KINDS, METRIC_MODES

_INTRODUCTION = """\
# Fields of a space file

Generated from the models that validate the files: `python -m search.fields > spaces/README.md`. In `space`, every field
of a trial takes one value for all trials, or a domain to search: `{type: float, low: 1e-4, high: 0.1, log: true}`,
`{type: int, low: 1, high: 8, step: 1}` or `{type: categorical, values: [a, b]}`. A searched field that has no effect
beside a trial's other choices is left out of that trial.

Paths are relative to the folder in which the command is called, those of `include` to the file that they are in. A file
lies on top of those it includes: mappings are merged key by key; lists, and domains with a `type`, replace the earlier.
"""

_SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("space: the fields of a trial", Hyperparameters),
    ("space: a number that is searched", FloatDomain),
    ("space: a whole number that is searched", IntDomain),
    ("space: a choice that is searched", CategoricalDomain),
    ("space: scaled_by of a number", Scaling),
    ("space: prior of a searched field", Prior),
    ("bounds of a number in when and forbid", Between),
    ("task", TaskConfig),
    ("task.data", DataConfig),
    ("task.split", SplitConfig),
    ("sampler", SamplerConfig),
    ("scheduler", SchedulerConfig),
    ("resources", ResourcesConfig),
    ("budget", BudgetConfig),
    ("keep", KeepConfig),
    ("final", FinalConfig),
    ("start_from: an earlier run", EarlierRun),
    ("all sections", SearchConfig),
)


def fields_page() -> str:
    """The whole page."""
    parts = [_INTRODUCTION]
    for title, model in _SECTIONS:
        head = f"## {title}\n\n| field | values | default | meaning |\n|---|---|---|---|\n"
        parts.append(head + "\n".join(_rows(model)))
    metrics = [f"| `{name}` | {METRIC_MODES[name]} | {', '.join(kinds)} |" for name, kinds in METRIC_KINDS.items()]
    parts.append("## task.metric\n\n| metric | better | defined for |\n|---|---|---|\n" + "\n".join(metrics))
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _rows(model: type[BaseModel]) -> Iterator[str]:
    schema = model.model_json_schema()
    for name, field in model.model_fields.items():
        part = schema["properties"][name]
        meaning = field.description or ""
        if model is Hyperparameters and name in CONDITIONS:
            meaning += f" Only where {CONDITIONS[name].words}."
        default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
        yield f"| `{name}` | {_values(part)} | {default} | {_escaped(meaning)} |"


def _values(part: dict[str, Any]) -> str:
    """The values that a part of a JSON Schema allows, on one line."""
    options = [option for option in part.get("anyOf", [part]) if option.get("type") != "null"]
    return " or ".join(dict.fromkeys(_one_kind(option) for option in options))


def _one_kind(option: dict[str, Any]) -> str:
    if "enum" in option:
        return ", ".join(value if isinstance(value, str) else json.dumps(value) for value in option["enum"])
    if "const" in option:
        return str(option["const"])
    if "type" not in option:
        return "section"
    words = {"string": "text", "boolean": "true, false", "array": "list", "object": "mapping", "integer": "integer"}
    types = [option["type"]] if isinstance(option["type"], str) else option["type"]
    kind = " or ".join(words.get(each, "number") for each in types)
    low = _bound(option, "minimum", "≥", "exclusiveMinimum", ">")
    high = _bound(option, "maximum", "≤", "exclusiveMaximum", "<")
    return " ".join(part for part in (kind, low, high) if part)


def _bound(option: dict[str, Any], inclusive: str, sign: str, exclusive: str, strict_sign: str) -> str:
    if inclusive in option:
        return f"{sign} {option[inclusive]:g}"
    return f"{strict_sign} {option[exclusive]:g}" if exclusive in option else ""


def _default(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, BaseModel) or value in ((), {}):
        return "see there" if isinstance(value, BaseModel) else "empty"
    if isinstance(value, tuple):
        return _escaped(f"[{', '.join(map(_default, value))}]")
    return _escaped(f"{value:g}" if isinstance(value, float) else str(value))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(fields_page())
