"""A valid search file becomes a frozen search, and reads back as the same from what is written of it."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from search.config import SearchConfig, load_search, to_yaml, with_absolute_root
from search.domains import CategoricalDomain, FloatDomain
from search.lint import lint
from tests.search.space_files import GOOD, SHIPPED, search_of, write
from trainables.errors import ConfigError


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_spaces_round_trip(path: Path, tmp_path: Path) -> None:
    config = load_search(path)
    assert config.name == path.stem
    resolved = tmp_path / "other_name.yaml"
    resolved.write_text(to_yaml(config), encoding="utf-8")
    assert load_search(resolved) == config
    assert SearchConfig.model_validate_json(config.model_dump_json(), strict=True) == config


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_spaces_make_trials(path: Path) -> None:
    config = load_search(path)
    space = config.search_space
    for recipe in config.start_from:
        assert space.contains(recipe, partial=True) is None
        trial = config.trial_config(recipe)
        assert trial.max_epochs == config.scheduler.max_epochs


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_spaces_hold_what_they_draw(path: Path) -> None:
    config = load_search(path)
    space, rng = config.search_space, random.Random(0)
    for _ in range(200):
        params = space.draw(rng)
        assert space.forbidden(params) or space.contains(params) is None
        config.trial_config(params)
    assert lint(config) == []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_spaces_open_with_their_facts(path: Path) -> None:
    comment = path.read_text(encoding="utf-8").split("\ntask:")[0]
    assert comment.startswith(f"# python -m search.run spaces/{path.name}\n")
    assert all(fact in comment for fact in ("Hardware:", "Duration:", "Score:", "Seeds:"))


def test_ready_spaces() -> None:
    names = {"small_dataset", "medium_dataset", "large_dataset", "conditional", "augmentation"}
    assert names <= {path.stem for path in SHIPPED}


def test_values_arrive_as_the_field_holds_them(tmp_path: Path) -> None:
    text = GOOD.replace(
        "batch_size: 64", "batch_size: 64\n  dropout: {type: categorical, values: [0, 1e-1]}\n  erasing: 0"
    )
    config = load_search(write(tmp_path, text))
    assert config.space["lr"] == FloatDomain(type="float", low=1e-4, high=1e-2, log=True)
    assert repr(config.space["dropout"]) == repr(CategoricalDomain(type="categorical", values=(0.0, 0.1)))
    assert repr(config.space["erasing"]) == "0.0"
    assert config.start_from == ({"lr": 1e-3, "arch": "resnet18"},)


def test_trial_config(tmp_path: Path) -> None:
    config = load_search(write(tmp_path, GOOD), overrides=["sampler.seed=7", "task.split.val=0.3"])
    trial = config.trial_config({"arch": "resnet18", "lr": 0.01, "augment": "shift"})
    assert (trial.arch, trial.lr, trial.batch_size, trial.augment) == ("resnet18", 0.01, 64, "shift")
    assert (trial.max_epochs, trial.seed, trial.split.val, trial.metric) == (5, 7, 0.3, "val_top1")
    assert trial.augmentations == {"shift": ({"Affine": {"p": 0.5}},)}
    with pytest.raises(ConfigError, match="lr: must be above 0, found -1; write a number above 0"):
        config.trial_config({"lr": -1})


def test_config_is_frozen(tmp_path: Path) -> None:
    config = load_search(write(tmp_path, GOOD))
    with pytest.raises(ValidationError, match="frozen"):
        config.name = "other"


@pytest.mark.parametrize(
    ("written", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1.5d", 129600), ("45", 45), ("null", None)]
)
def test_durations(tmp_path: Path, written: str, seconds: float | None) -> None:
    config = load_search(write(tmp_path, GOOD.replace("trials: 10", f"trials: 10, time: {written}")))
    assert config.budget.time_s == seconds


@pytest.mark.parametrize(
    ("file_name", "name"), [("my_space.yaml", "my_space"), ("My Space (2).yaml", "my-space-2"), ("ü.yaml", "search")]
)
def test_name_is_that_of_the_file(tmp_path: Path, file_name: str, name: str) -> None:
    path = tmp_path / file_name
    path.write_text(GOOD, encoding="utf-8")
    assert load_search(path).name == name


def test_finite_spaces_need_no_budget(tmp_path: Path) -> None:
    text = GOOD.replace(
        "{type: float, low: 1e-4, high: 1e-2, log: true}", "{type: float, low: 1e-3, high: 5e-3, step: 1e-3}"
    )
    config = load_search(write(tmp_path, text.replace("trials: 10", "")))
    assert config.search_space.num_combinations == 2 * 5 * 2


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = search_of(
        tmp_path,
        task="{data: {name: csv, csv: photos/table.csv, root: photos, label_columns: [cat, dog]}, metric: val_map}",
        space="{weights: {type: categorical, values: [null, results/first]}, lr: {type: float, low: 0.1, high: 1, "
        "when: {weights: results/first}}}",
        forbid="[{weights: results/first, lr: {above: 0.9}}]",
        start_from="[{weights: results/first}]",
    )
    there = with_absolute_root(config)
    first = str(tmp_path / "results" / "first")
    assert there.task.data.csv == str(tmp_path / "photos" / "table.csv")
    assert there.task.data.root == str(tmp_path / "photos")
    assert there.space["weights"] == CategoricalDomain(type="categorical", values=(None, first))
    assert there.start_from == ({"weights": first},)
    assert SearchConfig.model_validate_json(there.model_dump_json(), strict=True) == there


def test_names_of_hub_data_sets_stay(tmp_path: Path) -> None:
    task = "{data: {name: huggingface, root: uoft-cs/cifar10}}"
    there = with_absolute_root(search_of(tmp_path, task=task, space="{lr: 0.1}"))
    assert there.task.data.root == "uoft-cs/cifar10"


def test_micro_batches_are_the_same_in_all_trials(tmp_path: Path) -> None:
    config = search_of(tmp_path, space="{lr: 0.1}", resources="{micro_batch_size: 16}")
    assert config.trial_config({}).micro_batch_size == 16


def test_tags_are_kept(tmp_path: Path) -> None:
    config = search_of(
        tmp_path, space="{lr: {type: float, low: 0.1, high: 1, tags: [speed]}}", tags="[first, 'of many']"
    )
    assert config.tags == ("first", "of many")
    assert dict(config.search_space.describe())["lr"] == "0.1 … 1; tags: speed"
    assert load_search(write(tmp_path, to_yaml(config))) == config


def test_models_check_themselves_without_a_file() -> None:
    with pytest.raises(ValidationError) as caught:
        SearchConfig.model_validate({"task": {"data": {"name": "digits"}}, "space": {"lr": 99, "seed": 1}})
    assert {error["loc"] for error in caught.value.errors()} == {("scheduler",), ("space", "lr"), ("space", "seed")}


def test_reading_a_search_is_quick_and_light() -> None:
    code = (
        "import sys; from pathlib import Path; from search.config import json_schema, load_search, to_yaml; "
        "import search.lint; "
        f"to_yaml(load_search(Path({str(SHIPPED[-1])!r}))); json_schema(); "
        "heavy = 'torch ray optuna timm torchvision albumentations numpy cv2 pandas'.split(); "
        "print([name for name in heavy if name in sys.modules])"
    )
    start = time.perf_counter()
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
    assert time.perf_counter() - start < 10  # well under a second, on an idle machine
