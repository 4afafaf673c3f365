"""KubeRay's resource definitions as one JSON Schema, strict as `kubectl --validate=strict`.

    git clone --depth 1 --branch v1.7.0 https://github.com/ray-project/kuberay
    python -m tests.cluster.crd_schema v1.7.0 kuberay/ray-operator/config/crd/bases > tests/cluster/kuberay_schema.json

An API server refuses fields that a schema does not name; JSON Schema has to be told to. The definitions repeat a whole
pod for every group of workers, in 1.4 MB: what occurs more than once is written once here, under `$defs`.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

_KINDS = {"RayCluster": "ray.io_rayclusters.yaml", "RayJob": "ray.io_rayjobs.yaml"}
_API_VERSION = "ray.io/v1"
# The rest is for an API server: defaults, how lists merge, rules in its own expression language.
_KEPT = ("type", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "required")
_WORTH_SHARING = 150


def json_schema(version: str, folder: Path) -> dict[str, Any]:
    """JSON Schema of each kind in a folder of KubeRay's definitions, under its name in `$defs`."""
    kinds = {kind: _kind(kind, folder / name) for kind, name in _KINDS.items()}
    counts: Counter[str] = Counter()
    for schema in kinds.values():
        _count(schema, counts)
    shared: dict[str, str] = {}
    definitions: dict[str, Any] = {}
    for kind, schema in kinds.items():
        definitions[kind] = _share(schema, counts, shared, definitions, top=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": f"Made by tests/cluster/crd_schema.py from the custom resource definitions of KubeRay {version}, "
        "https://github.com/ray-project/kuberay, Copyright the KubeRay authors, Apache License 2.0 "
        "(https://www.apache.org/licenses/LICENSE-2.0); changed: shortened, repeated parts shared, no other fields.",
        "$defs": definitions,
    }


def _kind(kind: str, path: Path) -> dict[str, Any]:
    definition = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    (schema,) = (each["schema"]["openAPIV3Schema"] for each in definition["spec"]["versions"] if each["name"] == "v1")
    strict = _strict(schema)
    strict["required"] = ["apiVersion", "kind", "metadata", "spec"]
    strict["properties"] |= {"apiVersion": {"const": _API_VERSION}, "kind": {"const": kind}}
    strict["properties"]["metadata"] = {"type": "object", "required": ["name"]}
    del strict["properties"]["status"]  # written by the operator only
    return strict


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {key: schema[key] for key in _KEPT if key in schema}
    if "properties" in schema:
        kept["properties"] = {name: _strict(each) for name, each in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            kept["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        kept["additionalProperties"] = _strict(schema["additionalProperties"])
    if "items" in schema:
        kept["items"] = _strict(schema["items"])
    if schema.get("x-kubernetes-int-or-string"):
        kept["type"] = ["integer", "string"]
    return kept


def _count(schema: Any, counts: Counter[str]) -> None:
    for each in _parts(schema):
        counts[json.dumps(each, sort_keys=True)] += 1
        _count(each, counts)


def _parts(schema: dict[str, Any]) -> list[dict[str, Any]]:
    parts = list(schema.get("properties", {}).values())
    return parts + [schema[key] for key in ("items", "additionalProperties") if isinstance(schema.get(key), dict)]


def _share(
    schema: dict[str, Any],
    counts: Counter[str],
    shared: dict[str, str],
    definitions: dict[str, Any],
    *,
    top: bool = False,
) -> dict[str, Any]:
    """The schema with references for what occurs more than once; the definitions get their contents."""
    text = json.dumps(schema, sort_keys=True)
    worth = not top and counts[text] > 1 and len(text) > _WORTH_SHARING
    if worth and text in shared:
        return {"$ref": f"#/$defs/{shared[text]}"}
    whole = dict(schema)
    if "properties" in schema:
        whole["properties"] = {
            name: _share(each, counts, shared, definitions) for name, each in schema["properties"].items()
        }
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            whole[key] = _share(schema[key], counts, shared, definitions)
    if not worth:
        return whole
    shared[text] = f"s{len(shared)}"
    definitions[shared[text]] = whole
    return {"$ref": f"#/$defs/{shared[text]}"}


if __name__ == "__main__":
    json.dump(json_schema(sys.argv[1], Path(sys.argv[2])), sys.stdout, separators=(",", ":"))
    print()
