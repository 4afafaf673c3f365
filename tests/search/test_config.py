"""Every mistake in a search file is told at once, each with its line, its key, what was found and a remedy."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from search.config import SearchConfig, json_schema, load_search, to_yaml
from search.domains import CategoricalDomain, FloatDomain
from search.space import Space
from search.yaml_file import read_yaml
from trainables.config import Hyperparameters
from trainables.errors import ConfigError

SPACES = Path(__file__).parents[2] / "spaces"
SHIPPED = sorted(SPACES.glob("*.yaml"))

GOOD = """\
task:
  data: {name: digits}
space:
  arch:
    type: categorical
    values:
      - small_cnn
      - resnet18
  lr: {type: float, low: 1e-4, high: 1e-2, log: true}
  batch_size: 64
  augment: {type: categorical, values: [none, shift]}
augmentations:
  shift:
    - Affine: {p: 0.5}
sampler: {name: tpe}
scheduler: {max_epochs: 5}
resources: {workers: 1}
budget: {trials: 10}
start_from:
  - {lr: 1e-3, arch: resnet18}
"""


def _write(folder: Path, text: str) -> Path:
    path = folder / "small.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def _refusal(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_search(path, overrides=overrides)
    return str(caught.value).split("\n")


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
    space = Space(config.space)
    for recipe in config.start_from:
        assert space.contains(recipe, partial=True) is None
        trial = config.trial_config(recipe)
        assert trial.max_epochs == config.scheduler.max_epochs
        assert trial.lr == recipe["lr"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_spaces_open_with_their_facts(path: Path) -> None:
    comment = path.read_text(encoding="utf-8").split("\ntask:")[0]
    assert comment.startswith(f"# python -m search.run spaces/{path.name}\n")
    assert all(fact in comment for fact in ("Hardware:", "Duration:", "Score:", "Seeds:"))


def test_ready_spaces_are_three() -> None:
    assert {"small_dataset", "medium_dataset", "large_dataset"} <= {path.stem for path in SHIPPED}


def test_values_arrive_as_the_field_holds_them(tmp_path: Path) -> None:
    text = GOOD.replace(
        "batch_size: 64", "batch_size: 64\n  dropout: {type: categorical, values: [0, 1e-1]}\n  hflip: 0"
    )
    config = load_search(_write(tmp_path, text))
    assert config.space["lr"] == FloatDomain(type="float", low=1e-4, high=1e-2, log=True)
    assert repr(config.space["dropout"]) == repr(CategoricalDomain(type="categorical", values=(0.0, 0.1)))
    assert repr(config.space["hflip"]) == "0.0"
    assert config.start_from == ({"lr": 1e-3, "arch": "resnet18"},)


def test_trial_config(tmp_path: Path) -> None:
    config = load_search(_write(tmp_path, GOOD), overrides=["sampler.seed=7", "task.split.val=0.3"])
    trial = config.trial_config({"arch": "resnet18", "lr": 0.01, "augment": "shift"})
    assert (trial.arch, trial.lr, trial.batch_size, trial.augment) == ("resnet18", 0.01, 64, "shift")
    assert (trial.max_epochs, trial.seed, trial.split.val, trial.metric) == (5, 7, 0.3, "val_top1")
    assert trial.augmentations == {"shift": ({"Affine": {"p": 0.5}},)}
    with pytest.raises(ConfigError, match="lr: must be above 0, found -1; write a number above 0"):
        config.trial_config({"lr": -1})


def test_config_is_frozen(tmp_path: Path) -> None:
    config = load_search(_write(tmp_path, GOOD))
    with pytest.raises(ValidationError, match="frozen"):
        config.name = "other"


@pytest.mark.parametrize(
    ("written", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1.5d", 129600), ("45", 45), ("null", None)]
)
def test_durations(tmp_path: Path, written: str, seconds: float | None) -> None:
    config = load_search(_write(tmp_path, GOOD.replace("trials: 10", f"trials: 10, time: {written}")))
    assert config.budget.time_s == seconds


@pytest.mark.parametrize(
    ("file_name", "name"), [("my_space.yaml", "my_space"), ("My Space (2).yaml", "my-space-2"), ("ü.yaml", "search")]
)
def test_name_is_that_of_the_file(tmp_path: Path, file_name: str, name: str) -> None:
    path = tmp_path / file_name
    path.write_text(GOOD, encoding="utf-8")
    assert load_search(path).name == name


BROKEN = [
    # what is replaced in GOOD, by what, the line, and the key with the sentence
    ("low: 1e-4", "low: 0", 9, "space.lr.low: log scale needs low > 0, found 0; set low: 0.00001 or log: false"),
    ("high: 1e-2", "high: 1e-5", 9, "space.lr.low: must be below high, found low 0.0001 and high 1e-05; exchange them"),
    ("high: 1e-2", "high: 99", 9, "space.lr.high: must be at most 10, found 99; write 10 or less"),
    ("low: 1e-4", "low: '1e-4'", 9, "space.lr.low: must be a number, found '1e-4'; write it without quotes"),
    ("low: 1e-4, ", "", 9, "space.lr.low: is missing; add low: VALUE"),
    ("log: true", "log: yes", 9, "space.lr.log: must be true or false, found 'yes'; write true or false"),
    (
        "log: true",
        "lgo: true",
        9,
        "space.lr.lgo: unknown key, found 'lgo'; did you mean low or log? valid here: low, high",
    ),
    ("log: true", "step: 0.004", 9, "space.lr.step: high - low must be a multiple of step, found step 0.004"),
    ("type: float, ", "", 9, "space.lr.type: is missing; add type: float or type: int or type: categorical"),
    ("type: float", "type: flot", 9, "space.lr.type: must be float, int, categorical, found 'flot'; write type: float"),
    ("{type: float, low: 1e-4, high: 1e-2, log: true}", "[1e-4, 1e-2]", 9, "space.lr: found a list without a type"),
    ("batch_size: 64", "batch_size: big", 10, "space.batch_size: must be a whole number, found 'big'; write digits"),
    ("batch_size: 64", "batch_size: 64.0", 10, "space.batch_size: must be a whole number, found 64.0"),
    (
        "batch_size: 64",
        "batch_size: {type: float, low: 1, high: 2}",
        10,
        "space.batch_size.type: batch_size is a whole number, found type: float; write type: int or type: categorical",
    ),
    (
        "batch_size: 64",
        "pretrained: {type: int, low: 0, high: 1}",
        10,
        "space.pretrained.type: pretrained is a true or false, found type: int; write type: categorical",
    ),
    ("batch_size: 64", "max_epochs: 3", 10, "space.max_epochs: is no parameter of the space, found 'max_epochs'; it"),
    ("batch_size: 64", "seed: 3", 10, "it belongs to sampler.seed"),
    ("batch_size: 64", "learning_rate: 3", 10, "unknown parameter, found 'learning_rate'; write lr"),
    ("batch_size: 64", "batchsize: 64", 10, "unknown parameter, found 'batchsize'; did you mean batch_size?"),
    (
        "batch_size: 64",
        "dropout: {type: float, low: 0, high: 1.5}",
        10,
        "space.dropout.high: must be below 1, found 1.5",
    ),
    ("batch_size: 64", "optimizer: adam", 10, "space.optimizer: must be sgd or adamw, found 'adam'; write adamw"),
    (
        "batch_size: 64",
        "warmup_epochs: {type: int, low: 0, high: 5}",
        10,
        "space.warmup_epochs.high: must be below scheduler.max_epochs, found 5 of 5 epochs; write a smaller number",
    ),
    ("batch_size: 64", "dropout: .nan", 10, "space.dropout: must be a finite number, found nan"),
    ("- resnet18", "- resnt18", 8, "space.arch.values.1: unknown architecture 'resnt18'; nearest: resnet18"),
    (
        "- resnet18",
        "- alexnet",
        8,
        "space.arch.values.1: 'alexnet' is not in timm but in torchvision; write torchvision/",
    ),
    ("- resnet18", "- small_cnn", 8, "space.arch.values.1: written twice, found 'small_cnn' again; remove one"),
    ("- resnet18", "- [resnet18]", 8, "space.arch.values.1: must be one finite value, found a list"),
    ("[none, shift]", "[]", 11, "space.augment.values: must hold at least 1 value, found 0; add one"),
    ("[none, shift]", "[none, shfit]", 11, "space.augment.values.1: unknown augmentation, found 'shfit'; write shift"),
    ("Affine", "Afine", 14, "augmentations.shift.0.Afine: albumentations has no transform 'Afine'; nearest: Affine"),
    ("name: tpe", "name: tpee", 15, "sampler.name: must be tpe or random, found 'tpee'; write tpe"),
    ("name: tpe", "seed: -1", 15, "sampler.seed: must be at least 0, found -1; write 0 or more"),
    (
        "max_epochs: 5",
        "max_epoch: 5",
        16,
        "scheduler.max_epoch: unknown key, found 'max_epoch'; did you mean max_epochs?",
    ),
    ("max_epochs: 5", "grace_period: 1", 16, "scheduler.max_epochs: is missing; add max_epochs: 50"),
    (
        "max_epochs: 5",
        "max_epochs: 5, grace_period: 6",
        16,
        "scheduler.grace_period: must be at most max_epochs, found 6 of 5 epochs; write 5 or less",
    ),
    (
        "max_epochs: 5",
        "max_epochs: 5, reduction_factor: 1",
        16,
        "scheduler.reduction_factor: must be at least 2, found 1",
    ),
    ("workers: 1", "workers: 0", 17, "resources.workers: must be at least 1, found 0; write 1 or more"),
    (
        "workers: 1",
        'cpus_per_worker: "2"',
        17,
        "resources.cpus_per_worker: must be a number, found '2'; write it without",
    ),
    (
        "trials: 10",
        "time: 5y",
        18,
        "budget.time: must be a duration above 0, found '5y'; write it as 90s, 30m, 2h or 1d",
    ),
    ("trials: 10", "", 18, "budget: the space has no end, found no limit; add trials: 60, epochs: 1000 or time: 30m"),
    ("lr: 1e-3, arch", "lr: 1, arch", 20, "start_from.0.lr: must lie from 0.0001 to 0.01, found 1.0; write a value"),
    (
        "arch: resnet18",
        "batch_size: 32",
        20,
        "start_from.0.batch_size: is fixed to 64 by the space, found 32; remove it",
    ),
    ("arch: resnet18", "dropout: 0.5", 20, "start_from.0.dropout: is not in the space, found 'dropout'; "),
    ("  - {lr: 1e-3, arch: resnet18}", "  - 3", 20, "start_from.0: must map parameters to values, found 3"),
    ("name: digits", "name: digit", 2, "found 'digit'; write digits"),
    ("name: digits", "name: folder", 2, "task.data: a class-folder data set needs `root`; add root: PATH/TO/IMAGES"),
    ("name: digits", "name: digits, image_size: big", 2, "task.data.image_size: must be a whole number, found 'big'"),
    ("task:", "name: My Run\ntask:", 1, "name: must be of a-z, 0-9, - and _ only, found 'My Run'; write my-run"),
    (
        "sampler: {name: tpe}",
        "sampler: 3",
        15,
        "sampler: must be a mapping, found 3; write `key: value` lines below it",
    ),
]


@pytest.mark.parametrize(("old", "new", "line", "sentence"), BROKEN, ids=lambda value: str(value)[:40])
def test_broken(tmp_path: Path, old: str, new: str, line: int, sentence: str) -> None:
    assert GOOD.count(old) >= 1
    head, tail = GOOD.rsplit(old, 1) if old == "arch: resnet18" else GOOD.split(old, 1)
    path = _write(tmp_path, head + new + tail)
    told = _refusal(path)
    assert any(each.startswith(f"{path}:{line}: ") and sentence in each for each in told)
    assert all(": " in each and ("; " in each) for each in told)


def test_metric_and_missing_sections(tmp_path: Path) -> None:
    path = _write(tmp_path, "task: {metric: val_acc}\nspace: {}\n")
    assert _refusal(path) == [
        f"{path}: scheduler: is missing; add scheduler: {{max_epochs: 50}}",
        f"{path}:1: task.data: is missing; add data: {{name: digits}}",
        f"{path}:1: task.metric: must be val_top1, val_top5, val_loss, found 'val_acc'; "
        "write one of val_top1, val_top5, val_loss",
        f"{path}:2: space: must hold a parameter, found none; add lr: {{type: float, low: 1e-4, high: 0.1, log: true}}",
    ]


def test_all_problems_at_once(tmp_path: Path) -> None:
    text = GOOD
    for old, new in [
        ("name: digits", "name: digit"),
        ("- resnet18", "- resnt18"),
        ("low: 1e-4", "low: 0"),
        ("batch_size: 64", "bach_size: 64"),
        ("[none, shift]", "[none, shfit]"),
        ("Affine", "Afine"),
        ("name: tpe", "name: tpee"),
        ("max_epochs: 5", "max_epochs: 5, grace_period: 6"),
        ("workers: 1", "workers: 0"),
        ("trials: 10", "trials: many"),
        ("lr: 1e-3, arch", "dropout: 2, arch"),
    ]:
        text = text.replace(old, new, 1)
    path = _write(tmp_path, text)
    told = _refusal(path, "resources.gpus_per_worker=-1")
    keys = [line.split(": ")[1] for line in told]
    assert keys == [
        "task.data.name",
        "space.arch.values.1",
        "space.lr.low",
        "space.bach_size",
        "space.augment.values.1",
        "augmentations.shift.0.Afine",
        "sampler.name",
        "scheduler.grace_period",
        "resources.workers",
        "resources.gpus_per_worker",
        "budget.trials",
        "start_from.0.dropout",
    ]
    assert told[9].startswith("-o resources.gpus_per_worker=-1: ")
    assert told[0].startswith(f"{path}:2: ")


def test_finite_spaces_need_no_budget(tmp_path: Path) -> None:
    text = GOOD.replace(
        "{type: float, low: 1e-4, high: 1e-2, log: true}", "{type: float, low: 1e-3, high: 5e-3, step: 1e-3}"
    )
    config = load_search(_write(tmp_path, text.replace("trials: 10", "")))
    assert Space(config.space).num_combinations == 2 * 5 * 2


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("space.lr=0.01", lambda config: config.space["lr"], 0.01),
        ("space.lr.low=1E-3", lambda config: config.space["lr"].low, 0.001),
        ("space.arch.values.0=resnet34", lambda config: config.space["arch"].values, ("resnet34", "resnet18")),
        ("space.dropout={type: float, low: 0, high: .5}", lambda config: config.space["dropout"].high, 0.5),
        (
            "scheduler={max_epochs: 9, name: none}",
            lambda config: (config.scheduler.max_epochs, config.scheduler.name),
            (9, "none"),
        ),
        ("task.split.val=0.1", lambda config: config.task.split.val, 0.1),
        ("resources.max_concurrent_trials=2", lambda config: config.resources.max_concurrent_trials, 2),
        ("budget.time=2h", lambda config: config.budget.time_s, 7200),
        ("start_from=[]", lambda config: config.start_from, ()),
        ("name=a=b", None, "-o name=a=b: name: must be of a-z, 0-9, - and _ only, found 'a=b'; write a-b"),
        ("space.lr.low=0", None, "-o space.lr.low=0: space.lr.low: log scale needs low > 0, found 0; set low: 0.00001"),
        (
            "scheduler.max_epoch=3",
            None,
            "-o scheduler.max_epoch=3: scheduler.max_epoch: unknown key, found 'max_epoch'; did",
        ),
        (
            "shceduler.max_epochs=3",
            None,
            "-o shceduler.max_epochs=3: shceduler: unknown key, found 'shceduler'; did you mean s",
        ),
        (
            "space.arch.values.9=x",
            None,
            "-o space.arch.values.9=x: space.arch.values is a list, found '9'; write an index",
        ),
        (
            "space.batch_size.low=3",
            None,
            "space.batch_size is no mapping, found 64; replace it: -o 'space.batch_size={low",
        ),
        ("max_epochs", None, "-o max_epochs: must be key=value, found 'max_epochs'; write for instance -o sched"),
        ("a..b=1", None, "-o a..b=1: must be key=value"),
        ("space.lr=[1", None, "-o space.lr=[1: not valid YAML: a list or mapping that is not closed"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_overrides(tmp_path: Path, override: str, read: Any, value: Any) -> None:
    path = _write(tmp_path, GOOD)
    if read is None:
        (line,) = _refusal(path, override)
        assert value in line
    else:
        assert read(load_search(path, overrides=[override])) == value


def test_overridden_domains_release_the_starting_points(tmp_path: Path) -> None:
    path = _write(tmp_path, GOOD)
    assert load_search(path, overrides=["space.lr=0.01"]).start_from == ({"arch": "resnet18"},)
    assert load_search(path, overrides=["space.lr.low=1e-3"]).start_from == ({"lr": 1e-3, "arch": "resnet18"},)
    assert load_search(path, overrides=["space.lr=0.01", "space.arch=small_cnn"]).start_from == ()
    # What the person writes in the same command is theirs to make consistent.
    (line,) = _refusal(path, "space.lr=0.01", "start_from=[{lr: 0.1}]")
    assert "-o start_from=[{lr: 0.1}]: start_from.0.lr: is fixed to 0.01 by the space, found 0.1" in line


def test_overrides_apply_in_order_and_spare_aliases(tmp_path: Path) -> None:
    text = GOOD.replace("lr: {type", "weight_decay: &range {type: float, low: 1e-4, high: 1e-2}\n  lr: *range\n#", 1)
    config = load_search(_write(tmp_path, text), overrides=["space.lr.high=5", "space.lr.high=1"])
    assert config.space["lr"] == FloatDomain(type="float", low=1e-4, high=1)
    assert config.space["weight_decay"] == FloatDomain(type="float", low=1e-4, high=1e-2)


def test_models_check_themselves_without_a_file() -> None:
    with pytest.raises(ValidationError) as caught:
        SearchConfig.model_validate({"task": {"data": {"name": "digits"}}, "space": {"lr": 99, "seed": 1}})
    assert {error["loc"] for error in caught.value.errors()} == {("scheduler",), ("space", "lr"), ("space", "seed")}


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
    ],
)
def test_schema_refuses_typos(tmp_path: Path, old: str, new: str) -> None:
    data = read_yaml(_write(tmp_path, GOOD.replace(old, new, 1))).data
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(json_schema()).validate(data)


def test_reading_a_search_is_quick_and_light() -> None:
    code = (
        "import sys; from pathlib import Path; from search.config import json_schema, load_search, to_yaml; "
        f"to_yaml(load_search(Path({str(SHIPPED[-1])!r}))); json_schema(); "
        "heavy = 'torch ray optuna timm torchvision albumentations numpy cv2 pandas'.split(); "
        "print([name for name in heavy if name in sys.modules])"
    )
    start = time.perf_counter()
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
    assert time.perf_counter() - start < 10  # well under a second, on an idle machine
