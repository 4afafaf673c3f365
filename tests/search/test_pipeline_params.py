"""An argument of a pipeline may be searched: it has a name of its own, and exists where its pipeline is chosen."""

from __future__ import annotations

import json
import random
from pathlib import Path
from textwrap import indent

import pytest

from search.config import SearchConfig, load_search, to_yaml
from search.pipeline_params import fill_pipelines, pipeline_params
from search.yaml_file import parse_value
from tests.search.space_files import refusal, search_of, space_file, write
from trainables.pipelines import build_pipeline

PIPELINES = """
mine:
  - Affine: {rotate: [-20, 20], shear: {type: float, low: 0, high: 15}, p: {type: float, low: 0.1, high: 1}}
  - HorizontalFlip
  - OneOf:
      p: {type: categorical, values: [0.25, 0.75]}
      transforms:
        - Affine: {scale: {x: {type: float, low: 0.8, high: 1.0}, y: 1.0}}
        - GaussianBlur: {blur_limit: [3, {type: int, low: 3, high: 7, step: 2}]}
other:
  - Affine: {shear: {type: int, low: 1, high: 9, when: {batch_size: {above: 64}}}}
plain:
  - Affine: {rotate: 5}
"""
MINE = [
    "augmentations.mine.Affine.shear",
    "augmentations.mine.Affine.p",
    "augmentations.mine.OneOf.p",
    "augmentations.mine.Affine2.scale.x",
    "augmentations.mine.GaussianBlur.blur_limit.1",
]
OTHER = "augmentations.other.Affine.shear"


def _config(folder: Path, **sections: str) -> SearchConfig:
    return search_of(
        folder,
        **{
            "space": "{augment: {type: categorical, values: [none, plain, mine, other]}, "
            "batch_size: {type: categorical, values: [32, 128]}}",
            "augmentations": indent(PIPELINES, "  "),
            **sections,
        },
    )


def test_names_are_readable_and_distinct() -> None:
    assert [each.name for each in pipeline_params(parse_value(PIPELINES))] == [*MINE, OTHER]


def test_they_exist_where_their_pipeline_is_chosen(tmp_path: Path) -> None:
    space, rng = _config(tmp_path).search_space, random.Random(0)
    assert space.searched == ("augment", "batch_size", *MINE, OTHER)
    for _ in range(100):
        params = space.draw(rng)
        expected = {"mine": set(MINE), "other": {OTHER} if params["batch_size"] == 128 else set()}
        assert set(params) == {"augment", "batch_size"} | expected.get(params["augment"], set())
        assert space.contains(params) is None


def test_the_trial_gets_the_values_in_their_places(tmp_path: Path) -> None:
    config = _config(tmp_path)
    params = {"augment": "mine", "batch_size": 32, **dict(zip(MINE, (3.0, 0.5, 0.75, 0.9, 5), strict=True))}
    fields = config.trial_fields(params)
    assert set(fields) == {"augment", "batch_size", "augmentations"}
    assert json.loads(json.dumps(fields)) == fields
    assert fields["augmentations"]["mine"] == [
        {"Affine": {"rotate": [-20, 20], "shear": 3.0, "p": 0.5}},
        "HorizontalFlip",
        {
            "OneOf": {
                "p": 0.75,
                "transforms": [
                    {"Affine": {"scale": {"x": 0.9, "y": 1.0}}},
                    {"GaussianBlur": {"blur_limit": [3, 5]}},
                ],
            }
        },
    ]
    trial = config.trial_config(params)
    assert trial.augmentations["mine"] == tuple(fields["augmentations"]["mine"])
    assert config.search_space.contains(params) is None


def test_without_a_value_an_argument_is_left_to_its_default(tmp_path: Path) -> None:
    config = _config(tmp_path)
    mine = config.shared_by_trials()["augmentations"]["mine"]
    assert mine[0] == {"Affine": {"rotate": [-20, 20]}}
    assert mine[2] == {"OneOf": {"transforms": [{"Affine": {}}, {"GaussianBlur": {}}]}}
    assert config.trial_fields({"augment": "plain", "batch_size": 32}) == {"augment": "plain", "batch_size": 32}
    assert fill_pipelines({"plain": ["HorizontalFlip"]}, {}) == {"plain": ["HorizontalFlip"]}


def test_filled_pipelines_build(tmp_path: Path) -> None:
    config, rng = _config(tmp_path), random.Random(1)
    for _ in range(20):
        trial = config.trial_config(config.search_space.draw(rng))
        if trial.augment != "none":
            build_pipeline(trial.augmentations[trial.augment], where=trial.augment)  # raises where a value does not fit


def test_round_trip_and_starting_points(tmp_path: Path) -> None:
    config = _config(tmp_path, start_from="[{augment: mine, augmentations.mine.Affine.shear: 2.5}]")
    assert config.start_from == ({"augment": "mine", MINE[0]: 2.5},)
    assert load_search(write(tmp_path, to_yaml(config))) == config
    assert SearchConfig.model_validate_json(config.model_dump_json(), strict=True) == config


def test_pipelines_that_nothing_names_add_no_parameters(tmp_path: Path) -> None:
    assert _config(tmp_path, space="{augment: plain, lr: 0.1}").search_space.searched == ()


@pytest.mark.parametrize(
    ("old", "new", "line", "sentence"),
    [
        ("low: 0, ", "", 7, "augmentations.mine.0.Affine.shear.low: is missing"),
        ("type: float, low: 0, h", "h", 7, "augmentations.mine.0.Affine.shear.type: is missing; add type: float or"),
        ("type: float, low: 0,", "type: flaot, low: 0,", 7, "Affine.shear.type: must be float, int, categorical, foun"),
        ("high: 15", "high: -1", 7, "augmentations.mine.0.Affine.shear.low: must be below high, found low 0.0 and"),
        ("high: 15", "high: 15, scaled_by: batch_size", 7, "shear.scaled_by: is for parameters of the space, found it"),
        ("values: [0.25, 0.75]", "values: [[1, 2]]", 10, "OneOf.p.values.0: must be one finite value, found a list"),
        ("step: 2", "step: 3", 13, "2.OneOf.transforms.1.GaussianBlur.blur_limit.1.step: high - low must be a multi"),
        ("{above: 64}", "{above: 640}", 15, "other.0.Affine.shear.when.batch_size: holds for no value of batch_size"),
        ("batch_size: {above: 64}", "augment: mine", 15, "other.0.Affine.shear.when.augment: goes without saying: an"),
    ],
)
def test_refused(tmp_path: Path, old: str, new: str, line: int, sentence: str) -> None:
    assert old in PIPELINES
    path = space_file(
        tmp_path,
        space="{augment: {type: categorical, values: [mine, other]}, batch_size: {type: int, low: 8, high: 99}}",
        augmentations="",
    )
    write(tmp_path, path.read_text() + indent(PIPELINES.strip().replace(old, new, 1), "  "))
    told = refusal(path)
    assert len(told) == 1
    assert told[0].startswith(f"{path}:{line}: augmentations.")
    assert sentence in told[0]


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        (
            "{augmentations.mine.Affine.shear: 99}",
            "start_from.0.augmentations.mine.Affine.shear: must lie from 0",
        ),
        (
            "{augmentations.mine.Affine.shaer: 9}",
            "is not in the space, found 'augmentations.mine.Affine.shaer'; did",
        ),
        (
            "{augment: other, augmentations.mine.Affine.p: 1}",
            "has an effect only where augment is mine, found aug",
        ),
    ],
)
def test_refused_starting_points(tmp_path: Path, recipe: str, sentence: str) -> None:
    config = _config(tmp_path)
    path = write(tmp_path, to_yaml(config).replace("start_from: []", f"start_from: [{recipe}]"))
    (line,) = refusal(path)
    assert sentence in line
