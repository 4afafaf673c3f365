"""Editors are told what the loader accepts."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from search.config import json_schema, load_search
from search.yaml_file import parse_value, read_yaml
from tests.search.space_files import GOOD, SHIPPED, write
from trainables.hyperparameters import Hyperparameters


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_schema_accepts_shipped_spaces(path: Path) -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(read_yaml(path).data)
    jsonschema.Draft202012Validator(schema).validate(load_search(path).model_dump(mode="json"))


def test_schema_lists_every_parameter() -> None:
    space = json_schema()["properties"]["space"]
    assert set(space["properties"]) == set(Hyperparameters.model_fields)
    assert space["additionalProperties"] is False
    assert all(param["description"] for param in space["properties"].values())
    assert json_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("batch_size", "batchsize"),
        ("batch_size: 64", "batch_size: big"),
        ("batch_size: 64", "batch_size: {type: float, low: 1, high: 2}"),
        ("high: 1e-2", "high: 99"),
        ("log: true", "lgo: true"),
        ("type: float", "type: flot"),
        ("name: tpe", "name: tpee"),
        ("max_epochs: 5", "max_epoch: 5"),
        ("trials: 10", "time: 5y"),
        ("{lr: 1e-3, arch", "{larning_rate: 1e-3, arch"),
        ("sampler:", "smapler:"),
        ("log: true", "log: true, when: {}"),
        ("log: true", "log: true, prior: {value: 1e-3, confidence: some}"),
        ("log: true", "log: true, scaled_by: {parameter: batch_size, rule: cubic}"),
        ("task:", "forbid: [{lr: {abvoe: 1}}]\ntask:"),
    ],
)
def test_schema_refuses_typos(tmp_path: Path, old: str, new: str) -> None:
    data = read_yaml(write(tmp_path, GOOD.replace(old, new, 1))).data
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(json_schema()).validate(data)


def test_schema_accepts_all_that_a_space_can_say() -> None:
    text = GOOD.replace(
        "log: true", "log: true, when: {arch: [resnet18], batch_size: {above: 3}}, prior: 1e-3, tags: [a]"
    )
    text = text.replace("p: 0.5", "p: {type: float, low: 0, high: 1}").replace("  data:", "  # data:", 1)
    text = text.replace("lr: 1e-3, arch", "augmentations.shift.Affine.p: 0.5, arch") + "forbid: [{lr: {above: 1}}]\n"
    validator = jsonschema.Draft202012Validator(json_schema())
    data = parse_value(text.replace("task:\n", "").replace("  # data", "# data"))
    with pytest.raises(jsonschema.ValidationError, match="not valid under any"):
        validator.validate(data)  # nothing says which images
    validator.validate({"include": "images.yaml", **data})
