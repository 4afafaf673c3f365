"""What of an earlier run holds for a new search, what is tried first, and what is said of the rest."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jsonschema
import optuna
import pytest

from search.config import SearchConfig, json_schema, load_search, to_yaml, with_absolute_root
from search.earlier_runs import find_earlier
from search.gathering import gather
from search.knowledge import read_knowledge, write_knowledge
from search.ledger import Status
from search.results import RunPaths
from search.start_from import EarlierRun
from search.yaml_file import read_yaml
from tests.search.earlier import ARCH, LR, known_to, lines, search, stored
from tests.search.space_files import GOOD, refusal, write
from trainables.errors import ConfigError

SPACE = {"arch": ARCH, "lr": LR}
DONE, STOPPED, FAILED, RUNNING = Status.COMPLETED, Status.STOPPED, Status.FAILED, Status.RUNNING
CURVE = [0.1 * epoch for epoch in range(1, 10)]
TRIALS = [
    ({"arch": "small_cnn", "lr": 1e-3}, CURVE, DONE),
    ({"arch": "resnet18", "lr": 1e-2}, [0.2, 0.5], STOPPED),
    ({"arch": "cnn", "lr": 3e-3}, [0.99], STOPPED),
    ({"arch": "small_cnn", "lr": 5e-4}, [0.3], RUNNING),
    ({"arch": "small_cnn", "lr": 9e-2}, [0.1], FAILED),
    ({"arch": "small_cnn", "lr": 2e-4}, [], RUNNING),
]


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunPaths:
    """A run of six trials, at results/first."""
    monkeypatch.chdir(tmp_path)
    return stored(tmp_path / "results" / "first", search(SPACE), TRIALS)


def later(space: dict[str, Any], *starts: Any, **sections: Any) -> SearchConfig:
    return search(space, start_from=list(starts) or ["results/first"], **sections)


@pytest.mark.usefixtures("first")
def test_trials_carry_over_with_their_curves() -> None:
    knowledge = known_to(later(SPACE))
    assert [(each.trial, each.complete, each.again) for each in knowledge.trials] == [
        (2, False, True),
        (0, True, False),
        (1, False, False),
        (3, False, False),
    ]
    assert knowledge.trials[1].params == {"arch": "small_cnn", "lr": 1e-3}
    assert knowledge.trials[1].curve == dict(enumerate(CURVE, start=1))
    assert knowledge.trials[1].train_s == 3.0
    assert knowledge.points == ({"arch": "cnn", "lr": 3e-3},)
    assert lines(knowledge) == [
        "results/first: 4 of 6 trials carried over; the best is run again first",
        "  1 failed (DivergedError)",
        "  1 without a score",
    ]


@pytest.mark.usefixtures("first")
def test_what_does_not_fit_is_counted_by_reason() -> None:
    space = {"arch": ARCH | {"values": ["small_cnn", "resnet18"]}, "lr": LR | {"low": 8e-4}, "dropout": 0.0}
    knowledge = known_to(later(space, {"run": "results/first", "retry": 0}))
    assert [each.trial for each in knowledge.trials] == [0, 1]
    assert knowledge.points == ()
    assert lines(knowledge) == [
        "results/first: 2 of 6 trials carried over; none is run again (retry: 0), so none of them can win here",
        "  1 failed (DivergedError)",
        "  1 without a score",
        "  1 with arch=cnn, not in this space",
        "  1 with lr outside 0.0008 … 0.1, log",
    ]


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize(
    ("space", "carried", "said"),
    [
        # What was left at its default is a value like any other.
        ({**SPACE, "dropout": {"type": "float", "low": 0, "high": 0.5}}, 4, "searched here and not there: dropout"),
        ({**SPACE, "dropout": {"type": "float", "low": 0.1, "high": 0.5}}, 0, "4 with dropout outside 0.1 … 0.5"),
        ({**SPACE, "dropout": 0.1}, 0, "4 with dropout other than 0.1, to which this space fixes it"),
        ({"lr": LR, "arch": "small_cnn"}, 2, "this space fixes arch (small_cnn)"),
        ({"arch": ARCH}, 1, "3 with lr other than 0.001, its default, as the space lacks it"),
        ({"arch": ARCH}, 1, "this space lacks lr"),
        ({**SPACE, "compile": True}, 4, "4 of 6"),
        ({**SPACE, "augment": {"type": "categorical", "values": ["basic", "none"]}}, 4, "here and not there: augment"),
        (
            {**SPACE, "momentum": {"type": "float", "low": 0.5, "high": 0.9}, "optimizer": "sgd"},
            0,
            "4 without momentum",
        ),
        ({"arch": ARCH, "lr": LR | {"scaled_by": {"parameter": "batch_size", "reference": 32}}}, 4, "4 of 6"),
    ],
)
def test_a_trial_is_what_it_trained(space: dict[str, Any], carried: int, said: str) -> None:
    config = later(space)
    knowledge = known_to(config)
    assert len(knowledge.trials) == carried
    assert said in "\n".join(lines(knowledge))
    for each in knowledge.trials:
        twin = config.trial_config(each.params)
        assert (twin.arch, twin.lr) == (TRIALS[each.trial][0]["arch"], pytest.approx(TRIALS[each.trial][0]["lr"]))


@pytest.mark.usefixtures("first")
def test_forbidden_here() -> None:
    knowledge = known_to(later(SPACE, forbid=[{"arch": "cnn", "lr": {"above": 1e-3}}]))
    assert [each.trial for each in knowledge.trials] == [0, 1, 3]
    assert "  1 forbidden here (arch is cnn and lr is above 0.001)" in lines(knowledge)


def test_pipelines_of_one_name_must_have_the_same_transforms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def augmented(p: float, **sections: Any) -> SearchConfig:
        return search({**SPACE, "augment": "mine"}, augmentations={"mine": [{"HorizontalFlip": {"p": p}}]}, **sections)

    trial = ({"arch": "cnn", "lr": 1e-3}, [0.5], STOPPED)
    stored(tmp_path / "results" / "first", augmented(0.5), [trial])
    assert len(known_to(augmented(0.5, start_from="results/first")).trials) == 1
    other = known_to(augmented(0.25, start_from="results/first"))
    assert other.trials == ()
    assert "  1 with an augmentation mine of other transforms than here" in lines(other)


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize(
    ("sections", "fingerprint", "why"),
    [
        ({"scheduler": {"max_epochs": 20}}, "0123456789abcdef", "max_epochs 9 there, 20 here"),
        ({"task": {"data": {"name": "digits"}, "metric": "val_loss"}}, "0123456789abcdef", "val_top1 there, val_loss"),
        ({"task": {"data": {"name": "digits"}, "split": {"seed": 3}}}, "0123456789abcdef", "another division"),
        ({}, "f" * 16, "other images (fingerprint 0123456789abcdef there, ffffffffffffffff here)"),
        ({"task": {"data": {"name": "digits", "image_size": 16}}}, None, "other images"),
        (
            {"scheduler": {"max_epochs": 9, "fidelity": "data_fraction"}},
            "0123456789abcdef",
            "early epochs on other parts of the images",
        ),
        (
            {"task": {"data": {"name": "digits"}, "metric": ["val_top1", "flops"]}},
            "0123456789abcdef",
            "flops not measured there",
        ),
    ],
)
def test_scores_of_another_task_become_recipes(sections: dict[str, Any], fingerprint: str | None, why: str) -> None:
    config = later(SPACE, {"run": "results/first", "top": 2}, **sections)
    knowledge = known_to(config, fingerprint=fingerprint)
    assert knowledge.trials == ()
    assert knowledge.points == ({"arch": "cnn", "lr": 3e-3}, {"arch": "small_cnn", "lr": 1e-3})
    said = lines(knowledge)[0]
    assert said.startswith("results/first: none of 6 trials carried over: its scores do not hold here (")
    assert why in said
    assert said.endswith("of 4 parameter sets that fit, the best 2 are tried first")


@pytest.mark.usefixtures("first")
def test_recipes_leave_out_what_the_space_has_new_or_fixes() -> None:
    space = {
        "arch": "cnn",
        "lr": LR | {"high": 5e-3},
        "dropout": {"type": "float", "low": 0.1, "high": 0.5},
        "cnn_width": {"type": "int", "low": 16, "high": 64},
    }
    knowledge = known_to(later(space, scheduler={"max_epochs": 20}))
    assert knowledge.points == ({"lr": 3e-3, "cnn_width": 32}, {"lr": 1e-3}, {"lr": 5e-4})
    assert "  1 with lr outside 0.0001 … 0.005, log" in lines(knowledge)


@pytest.mark.usefixtures("first")
def test_where_nothing_fits_it_is_a_warning() -> None:
    knowledge = known_to(later({"lr": {"type": "float", "low": 0.5, "high": 0.9}}, scheduler={"max_epochs": 20}))
    assert (knowledge.trials, knowledge.points, knowledge.runs[0].nothing) == ((), (), True)
    assert lines(knowledge)[0].endswith("none of its parameter sets fits")


def test_mapped_parameters(first: RunPaths) -> None:
    stored(
        first.root.parent / "second",
        search({"lr": LR, "dropout": {"type": "float", "low": 0, "high": 0.5}}),
        [({"lr": 1e-2, "dropout": 0.2}, [0.5], STOPPED)],
    )
    space = {"lr": LR, "drop_path": {"type": "float", "low": 0, "high": 0.5}, "arch": "resnet18"}
    config = later(space, {"run": "results/second", "map": {"dropout": "drop_path"}}, scheduler={"max_epochs": 5})
    assert known_to(config).points == ({"lr": 1e-2, "drop_path": 0.2},)


@pytest.mark.usefixtures("first")
def test_the_best_that_may_win_are_run_again() -> None:
    assert len(known_to(later(SPACE, final={"top_k": 3, "seeds": 2})).points) == 3
    assert len(known_to(later(SPACE, {"run": "results/first", "retry": 2})).points) == 2
    # What a person writes out is run, although its score is known.
    knowledge = known_to(later(SPACE, {"arch": "resnet18", "lr": 1e-2}, {"run": "results/first"}))
    assert [each.trial for each in knowledge.trials if each.again] == [2, 1]
    assert knowledge.points == ({"arch": "cnn", "lr": 3e-3},)


def test_costs_come_with_the_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    task = {"data": {"name": "digits"}, "metric": ["val_top1", "latency_ms"]}
    costs = {"latency_ms": 2.5}
    stored(tmp_path / "results" / "first", search(SPACE, task=task), TRIALS[:1], objectives=[costs])
    config = later(SPACE, task=task)
    assert known_to(config).trials[0].objectives == costs
    elsewhere = gather(config, find_earlier(config), fingerprint="0123456789abcdef", hardware={"cpus": 64})
    assert "latency_ms of another machine" in lines(elsewhere)[0]


def test_with_several_objectives_the_front_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    task = {"data": {"name": "digits"}, "metric": ["val_top1", "flops"]}
    costs = {"small_cnn": 2.0, "resnet18": 1.0, "cnn": 3.0}  # in TRIALS the scores are 0.9, 0.5 and 0.99
    for name, scale in (("first", 1.0), ("second", -1.0)):
        trials = TRIALS[:3]
        objectives = [{"flops": 5 + scale * costs[str(params["arch"])]} for params, _, _ in trials]
        stored(tmp_path / "results" / name, search(SPACE, task=task), trials, objectives=objectives)
    assert [each["arch"] for each in known_to(later(SPACE, task=task)).points] == ["cnn", "small_cnn", "resnet18"]
    assert [each["arch"] for each in known_to(later(SPACE, "results/second", task=task)).points] == ["cnn"]
    few = {"run": "results/first", "retry": 1}
    assert [each["arch"] for each in known_to(later(SPACE, few, task=task)).points] == ["cnn"]


@pytest.mark.usefixtures("first")
def test_knowledge_is_kept_as_it_is(tmp_path: Path) -> None:
    knowledge = known_to(later(SPACE))
    paths = RunPaths(tmp_path / "new")
    assert read_knowledge(paths) is None
    paths.root.mkdir()
    write_knowledge(knowledge, paths)
    assert read_knowledge(paths) == knowledge
    paths.start_from.write_text('{"trials": [{}]}')
    with pytest.raises(ConfigError, match=r"start_from.json: cannot be read .*; restore it from a copy"):
        read_knowledge(paths)


def test_the_forms_of_the_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = GOOD.replace("  - {lr: 1e-3, arch: resnet18}", "  - results/first\n  - {run: results/b, map: {wd: lr}}")
    path = write(tmp_path, text)
    config = load_search(path)
    assert config.start_from == (EarlierRun(run="results/first"), EarlierRun(run="results/b", map={"wd": "lr"}))
    assert config.starting_points == ()
    lone = load_search(path, overrides=["start_from=results/first"])
    assert lone.start_from == (EarlierRun(run="results/first"),)
    there = with_absolute_root(config)
    assert there.earlier_runs[0].run == str(tmp_path / "results" / "first")
    assert load_search(write(tmp_path, to_yaml(there), name="again.yaml")).start_from == there.start_from
    assert SearchConfig.model_validate_json(there.model_dump_json(), strict=True) == there
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.validate(read_yaml(path).data)
    validator.validate({**read_yaml(path).data, "start_from": "results/first"})
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({**read_yaml(path).data, "start_from": [{"run": "a", "tpo": 3}]})


def test_overrides_release_what_is_mapped(tmp_path: Path) -> None:
    space = "{optimizer: {type: categorical, values: [sgd, adamw]}, momentum: {type: float, low: 0.5, high: 0.9}}"
    text = GOOD.replace("  - {lr: 1e-3, arch: resnet18}", "  - {run: results/b, map: {dropout: momentum, lr: lr}}")
    path = write(
        tmp_path,
        text.replace("  batch_size: 64", f"  batch_size: 64\n  {space[1:-1].replace('}, ', '}' + chr(10) + '  ')}"),
    )
    config = load_search(path, overrides=["space.optimizer=adamw"])
    assert config.earlier_runs[0].map == {"lr": "lr"}


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{run: results/a, tpo: 3}", "start_from.0.tpo: unknown key, found 'tpo'; did you mean top?"),
        ("{run: results/a, top: -1}", "start_from.0.top: must be at least 0, found -1; write 0 or more"),
        ("{run: 3}", "start_from.0.run: must be text, found 3"),
        ("{top: 3}", "start_from.0.top: goes with an earlier run, found top alone; add run: results/RUN"),
        (
            "{run: results/a, map: {wd: wieght_decay, x: lr}}",
            "start_from.0.map.wd: is not in this space, found 'wieght_decay'; valid here: arch",
        ),
        ("{run: results/a, map: {a: lr, b: lr}}", "start_from.0.map.b: stands for lr as a does, found lr twice"),
    ],
)
def test_mistakes_in_an_entry(tmp_path: Path, entry: str, told: str) -> None:
    path = write(tmp_path, GOOD.replace("{lr: 1e-3, arch: resnet18}", entry))
    (line,) = refusal(path)
    assert line.startswith(f"{path}:20: {told}")


def test_runs_that_cannot_be_used(first: RunPaths) -> None:
    results = first.root.parent
    (results / "empty").mkdir()
    shutil.copytree(first.root, results / "old")
    (results / "old" / "config.yaml").write_text("space: {}\n")
    starts: list[Any] = [
        {"run": "results/frist"},
        {"run": "elsewhere/x"},
        {"run": "results/empty"},
        {"run": "results/old"},
        {"run": "results/first", "map": {"learning_rate": "lr", "dropout": "lr"}},
        {"run": "results/../results/first"},
    ]
    config = later(SPACE, *starts[:4], {"run": "results/first", "map": {"learning_rate": "lr"}}, starts[5])
    with pytest.raises(ConfigError) as caught:
        find_earlier(config)
    told = str(caught.value).splitlines()
    assert told[0] == "start_from.0.run: no such run, found results/frist; did you mean results/first?"
    assert told[1].startswith(
        "start_from.1.run: no such run, found elsewhere/x; write the folder of a run; runs in res"
    )
    assert told[2].startswith("start_from.2.run: results/empty has no config.yaml, so it is no run")
    assert told[3].startswith("start_from.3.run: the configuration of results/old cannot be read (")
    assert told[4] == (
        "start_from.4.map.learning_rate: is no parameter of results/first, found 'learning_rate'; valid here: arch, lr"
    )
    assert told[5].startswith("start_from.5.run: the same run as start_from.4, found results/../results/first twice")


def test_a_damaged_study_is_named(first: RunPaths) -> None:
    first.study.write_text("{}\nnot a journal\n")
    with pytest.raises(ConfigError, match=r"start_from.0.run: .*study.log: cannot be read as a study"):
        known_to(later(SPACE))
