"""What may stand in `space` and `start_from`, as JSON Schema? Made from `Hyperparameters` and the domains."""

from __future__ import annotations

import re
from typing import Any

from search.domains import DOMAINS
from search.parameters import fitting_types
from search.pipeline_params import PREFIX
from search.start_from import EarlierRun
from trainables.hyperparameters import Hyperparameters

Schema = dict[str, Any]


def space_schema() -> Schema:
    """Every parameter with its description: a domain that fits its field, or one value."""
    return _closed({name: _param(name, field) for name, field in _fields().items()}) | {"minProperties": 1}


def start_schema() -> Schema:
    """A list of starting points, which are values by parameter, and of earlier runs; or one such run."""
    arguments = {f"^{re.escape(PREFIX)}": {"type": ["string", "number", "boolean", "null"]}}
    recipe = _closed(_fields()) | {"patternProperties": arguments}
    folder = {"type": "string", "minLength": 1, "description": EarlierRun.model_fields["run"].description}
    return {"anyOf": [{"type": "array", "items": {"anyOf": [recipe, EarlierRun.model_json_schema(), folder]}}, folder]}


def _fields() -> dict[str, Schema]:
    fields: dict[str, Schema] = Hyperparameters.model_json_schema()["properties"]
    return {name: {key: part for key, part in field.items() if key != "title"} for name, field in fields.items()}


def _param(name: str, field: Schema) -> Schema:
    value = {key: part for key, part in field.items() if key not in ("default", "description")}
    domains = [_domain(kind, value) for kind in fitting_types(name)]
    return {"description": field["description"], "default": field["default"], "anyOf": [*domains, value]}


def _domain(kind: str, value: Schema) -> Schema:
    schema = DOMAINS[kind].model_json_schema()
    parts = dict(schema["properties"])
    if kind == "categorical":
        parts["values"] = parts["values"] | {"items": value, "uniqueItems": True}
    else:
        for bound in ("low", "high"):
            parts[bound] = {"allOf": [parts[bound], value], "description": parts[bound]["description"]}
    return {**_closed(parts), "required": schema["required"], "description": schema["description"]}


def _closed(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}
