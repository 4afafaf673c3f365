"""The report of a real search, and of the runs that a page must survive."""

from __future__ import annotations

import csv
import json
import random
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search.config import SearchConfig, load_search, to_yaml
from search.final_summary import Candidate, FinalSummary
from search.html_report import write_html_report
from search.importance import GROUPS, group_shares, importance_problem, parameter_importances
from search.ledger import Status, TrialRecord
from search.report_sections import time_section
from search.report_source import read_source
from search.report_story import cautions, story
from search.results import RunPaths, write_json
from search.study import StudyStore
from search.summary import write_summary
from search.test_report import write_predictions, write_test_report
from search.trial_attrs import OUTCOME
from tests.search.cli import run, write_space
from trainables.hyperparameters import Hyperparameters

SPACE: dict[str, Any] = {
    "arch": {"type": "categorical", "values": ["small_cnn", "cnn"]},
    "cnn_width": {"type": "int", "low": 8, "high": 128, "log": True},  # only beside cnn
    "lr": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "dropout": {"type": "float", "low": 0.0, "high": 0.5},
    "batch_size": {"type": "categorical", "values": [32, 64]},
}
# The same, as the searcher hands them to Optuna.
STAGES = ("train_s", "read_s", "val_s")
DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "arch": CategoricalDistribution(["small_cnn", "cnn"]),
    "cnn_width": IntDistribution(8, 128, log=True),
    "lr": FloatDistribution(1e-4, 1e-1, log=True),
    "dropout": FloatDistribution(0.0, 0.5),
    "batch_size": CategoricalDistribution([32, 64]),
}
HOSTILE = "<script>alert('&')</script>"


class Page(HTMLParser):
    """A page as a browser reads it; complains about elements that are not closed in order."""

    VOID = ("meta", "img", "br")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.opened: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.data: dict[str, Any] = {}
        self.feed(self.text)
        assert self.opened == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.opened and self.opened[-1] == "script":
            if self.tags[-1][1].get("id") == "data":
                self.data = json.loads(data)
        elif "style" not in self.opened:
            self.words.append(data)

    @property
    def sections(self) -> set[str]:
        return {str(attrs.get("id")) for tag, attrs in self.tags if tag == "section"}

    @property
    def shown(self) -> str:
        return " ".join(self.words)

    def count(self, tag: str) -> int:
        return sum(each == tag for each, _ in self.tags)


def stored_run(
    root: Path,
    records: list[TrialRecord],
    *,
    state: str | None = "finished",
    fingerprint: str = "0123456789abcdef",
    test: dict[str, Any] | None = None,
    classes: tuple[str, ...] = ("a", "b"),
    **sections: Any,
) -> tuple[RunPaths, SearchConfig]:
    """The folder of a run whose trials were not trained but are kept like those that were."""
    given = {"space": SPACE, "scheduler": {"max_epochs": 9}, **sections}
    config = load_search(write_space(root.parent / f"{root.name}-space", **given))
    paths = RunPaths(root)
    root.mkdir(parents=True)
    paths.config.write_text(to_yaml(config))
    store = StudyStore(
        paths.study, name=paths.name, metric=config.metric, sampler=config.sampler, space=config.search_space
    )
    for record in records:
        outcome = {"status": record.status.value, "cause": record.cause, "message": record.message}
        failed = record.status is Status.FAILED or record.score is None
        store.study.add_trial(
            optuna.create_trial(
                state=optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE,
                value=None if failed else record.score,
                params=dict(record.params),
                distributions={name: DISTRIBUTIONS[name] for name in record.params},
                intermediate_values=dict(record.curve),
                user_attrs={OUTCOME: {**outcome, **{name: getattr(record, name) for name in STAGES}}},
            )
        )
    write_json(
        paths.environment,
        {
            "started": "2026-01-02T03:04:05+00:00",
            "data": {"fingerprint": fingerprint, "train": 600, "val": 200, "test": 200, "classes": list(classes)},
        },
    )
    if state is not None:
        write_summary(paths, config, records, state=state, reason=None, elapsed_s=12.0, test=test)
    return paths, config


def drawn(count: int, *, epochs: int = 9, seed: int = 0) -> list[TrialRecord]:
    """Trials whose score depends on lr, and a little on chance; some stopped, some failed."""
    rng = random.Random(seed)
    records = []
    for number in range(count):
        params: dict[str, Any] = {
            "arch": rng.choice(["small_cnn", "cnn"]),
            "lr": 10 ** rng.uniform(-4, -1),
            "dropout": rng.uniform(0, 0.5),
            "batch_size": rng.choice([32, 64]),
        }
        if params["arch"] == "cnn":
            params["cnn_width"] = rng.randint(8, 128)
        if number % 11 == 10:
            records.append(
                TrialRecord(number=number, params=params, status=Status.FAILED, cause="ConfigError", message=HOSTILE)
            )
            continue
        top = 0.9 - 0.1 * abs(np.log10(params["lr"]) + 2.5) + rng.gauss(0, 0.003)
        length = epochs if top > 0.85 else rng.choice([1, 3, epochs])
        curve = {epoch: top - 0.3 * 0.5**epoch for epoch in range(1, length + 1)}
        records.append(
            TrialRecord(
                number=number,
                params=params,
                status=Status.COMPLETED if length == epochs else Status.STOPPED,
                curve=curve,
                score=max(curve.values()),
                best_epoch=length,
                train_s=0.5 * length,
            )
        )
    return records


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """A small search that ran to its end."""
    root = tmp_path_factory.mktemp("searched")
    status, out, err = run(write_space(root), "--name", "done", "--storage-path", root / "results")
    assert (status, err) == (0, ""), out + err
    return RunPaths(root / "results" / "done")


@pytest.mark.ray
def test_a_real_run_is_told_in_full(searched: RunPaths) -> None:
    source = read_source(searched)
    assert source.winner is not None
    page = Page(write_html_report(read_source(searched)))
    assert {"story", "history", "curves", "importance", "parameters", "rungs", "time", "test", "confusion", "classes",
            "leaderboard", "settings"} <= page.sections  # fmt: skip
    assert [trial["y"] for trial in page.data["trials"]] == pytest.approx(
        [record.score for record in source.records], rel=1e-4
    )
    assert page.data["best"] == source.winner.number
    assert {trial["t"][1] > trial["t"][0] for trial in page.data["trials"]} == {True}
    assert source.test is not None
    assert f"Trial {source.winner.number} won with val_top1 {source.winner.score:.4f}" in page.shown
    assert f"95 % interval {source.test['interval95'][0]:.4f}" in page.shown

    with (searched.test / "predictions.csv").open() as file:
        wrong = sum(row["label"] != row["predicted"] for row in csv.DictReader(file))
    cards = [attrs for tag, attrs in page.tags if tag == "img" and "taken for" in str(attrs["alt"])]
    assert len(cards) == min(wrong, 24) > 0
    assert {card["width"] for card in cards} == {"128"}  # 8 x 8 pixels, each drawn 16 x 16


@pytest.mark.ray
def test_the_page_needs_no_other_file(searched: RunPaths) -> None:
    page = Page(write_html_report(read_source(searched)))
    links = {str(attrs.get("href") or attrs.get("src")) for _, attrs in page.tags if {"href", "src"} & set(attrs)}
    assert {link for link in links if not link.startswith(("#", "data:image/png;base64,"))} == set()
    assert "url(" not in page.text
    assert {link[1:] for link in links if link.startswith("#")} <= page.sections
    assert all(attrs["alt"] for tag, attrs in page.tags if tag == "img")
    assert all(attrs["data-label"] for _, attrs in page.tags if "data-chart" in attrs)


@pytest.mark.ray
def test_other_images_are_not_shown_as_the_mistakes(searched: RunPaths) -> None:
    environment = searched.environment.read_text()
    try:
        write_json(searched.environment, json.loads(environment) | {"data": {"fingerprint": "of others"}})
        page = Page(write_html_report(read_source(searched)))
    finally:
        searched.environment.write_text(environment)
    assert "could not be read again" in page.shown
    assert not [attrs for tag, attrs in page.tags if tag == "img" and "taken for" in str(attrs["alt"])]


def test_names_are_never_markup(tmp_path: Path) -> None:
    names = (HOSTILE, "</td>&amp;", "\"' onload=x")
    probabilities = np.array([[0.9, 0.05, 0.05], [0.1, 0.1, 0.8], [0.3, 0.6, 0.1], [0.2, 0.1, 0.7]])
    labels = np.array([0, 1, 1, 0])
    test = {"trial": 0, "images": 4, "top1": 0.5, "interval95": [0.15, 0.85]}
    paths, _ = stored_run(tmp_path / "run", drawn(30), test=test, classes=names)
    write_json(paths.test / "metrics.json", test)
    write_test_report(paths.test, probabilities=probabilities, labels=labels, kind="multiclass", class_names=names)
    write_predictions(
        paths.test / "predictions.csv", rows=np.arange(4), names=("<b>.png", "b", "c", "d"),
        probabilities=probabilities, labels=labels, kind="multiclass", class_names=names,
    )  # fmt: skip
    page = Page(write_html_report(read_source(paths)))
    assert page.count("script") == 2  # the data and the page's own
    assert page.count("b") == sum("track" in str(attrs.get("class")) for _, attrs in page.tags)  # bars, no names
    assert not [tag for tag, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    assert HOSTILE in page.shown
    assert {each["f"] for each in page.data["trials"] if "f" in each} == {"ConfigError"}


@pytest.mark.parametrize(
    "records",
    [
        [],
        [TrialRecord(number=0, params={"lr": 0.01})],
        [TrialRecord(number=0, params={"lr": 0.01}, status=Status.FAILED, cause="X", message="y")],
        [TrialRecord(number=0, params={}, status=Status.COMPLETED, curve={1: 0.5}, score=0.5, best_epoch=1)],
        [TrialRecord(number=0, params={}, status=Status.RUNNING, curve={3: 0.5, 5: float("nan")}, score=0.5)],
    ],
    ids=["no trial", "none with an epoch", "all failed", "one trial", "gaps in a curve"],
)
@pytest.mark.parametrize("state", ["interrupted", "failed", None])
def test_a_run_without_a_finished_search_has_a_page(
    tmp_path: Path, records: list[TrialRecord], state: str | None
) -> None:
    paths, config = stored_run(tmp_path / "run", records, state=state)
    page = Page(write_html_report(read_source(paths, config=config, records=records)))
    assert f"This run is {state or 'unfinished'}" in page.shown
    assert "won with" not in page.shown
    scored = any(record.score is not None for record in records)
    assert ("no winner" in page.shown) == (bool(records) and not scored)


def test_a_large_run_stays_a_small_page(tmp_path: Path) -> None:
    records = drawn(1000, epochs=50)
    paths, config = stored_run(tmp_path / "run", [], scheduler={"max_epochs": 50})
    path = write_html_report(read_source(paths, config=config, records=records))
    assert path.stat().st_size < 1_500_000
    assert len(Page(path).data["trials"]) == 1000


def test_several_labels_an_image(tmp_path: Path) -> None:
    names = ("row", "name", "sky")  # as the columns of the table are called
    probabilities = np.array([[0.9, 0.2, 0.95], [0.8, 0.1, 0.1], [0.1, 0.9, 0.2]])
    labels = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0]])
    test = {"trial": 0, "images": 3, "exact_match": 0.667, "interval95": [0.2, 0.9], "map": 0.8}
    table = tmp_path / "table.csv"
    table.write_text("path,row,name,sky\n")
    data = {"name": "csv", "csv": str(table), "label_columns": list(names)}
    paths, _ = stored_run(
        tmp_path / "run", drawn(5), test=test, classes=names, task={"data": data, "metric": "val_map"}
    )
    write_json(paths.test / "metrics.json", test)
    write_test_report(paths.test, probabilities=probabilities, labels=labels, kind="multilabel", class_names=names)
    write_predictions(
        paths.test / "predictions.csv", rows=np.arange(3), names=None, probabilities=probabilities, labels=labels,
        kind="multilabel", class_names=names,
    )  # fmt: skip
    page = Page(write_html_report(read_source(paths)))
    assert "confusion" not in page.sections
    assert {"classes", "mistakes", "test"} <= page.sections
    assert "is not sky" in page.shown
    assert "reaches map 0.8000 (exact_match 0.6670, 95 % interval 0.2000 to 0.9000)" in page.shown


def test_later_chapters_come_with_their_data(tmp_path: Path) -> None:
    records = drawn(12)
    paths, _ = stored_run(tmp_path / "run", records)
    (paths.root / "augmentation.png").write_bytes(b"no picture")
    bare = Page(write_html_report(read_source(paths)))
    assert not {"pareto", "retrainings", "augmentation"} & bare.sections
    summary = json.loads(paths.summary.read_text())
    for epochs, said in ((7, "together, for 7 epochs"), (None, "training images alone")):
        final = FinalSummary(
            winner=0, metric="top1", candidates=(Candidate(0, 0.95, (0, 1), (0.93, 0.94)),), refit_epochs=epochs,
            test_seeds=(0, 1), tests=(0.92, 0.90), test_interval=(0.91, 0.78, 1.0), optimism_gap=0.04,
            selection_gap=0.015, failures=(),
        )  # fmt: skip
        write_json(paths.summary, {**summary, "final": final.as_dict()})
        page = Page(write_html_report(read_source(paths)))
        assert "retrainings" in page.sections and said in page.shown
    assert "+0.0150" in page.shown  # 0.95 less the mean of 0.93 and 0.94


def test_every_hyperparameter_has_one_group() -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(Hyperparameters.model_fields)


def test_the_parameter_that_decides_stands_out(tmp_path: Path) -> None:
    _, config = stored_run(tmp_path / "run", [])
    domains = config.search_space.domains
    found = parameter_importances(drawn(150), domains=domains, metric="val_top1")
    assert found[0].name == "lr"
    assert found[0].share > max(0.5, found[0].noise)
    width = next(each for each in found if each.name == "cnn_width")
    assert 0 < width.num_trials < found[0].num_trials  # it exists beside cnn only
    assert sum(each.share for each in found) == pytest.approx(1)
    assert next(iter(group_shares(found))) == "optimisation"
    assert parameter_importances(drawn(150), domains=domains, metric="val_top1") == found


def test_too_few_trials_have_no_importances(tmp_path: Path) -> None:
    _, config = stored_run(tmp_path / "run", [])
    domains = config.search_space.domains
    few = drawn(12)
    assert parameter_importances(few, domains=domains, metric="val_top1") == ()
    assert "11 of the 20 trials with a score that importances need" in str(importance_problem(few, domains=domains))


def test_what_should_make_a_person_careful_is_said(tmp_path: Path) -> None:
    def trial(number: int, score: float, **params: Any) -> TrialRecord:
        return TrialRecord(
            number=number, params=params, status=Status.COMPLETED, curve={8: score, 9: score - 0.1}, score=score,
            best_epoch=8,
        )  # fmt: skip

    records = [trial(0, 0.95, lr=0.0999, dropout=0.0), trial(1, 0.95, lr=0.01), trial(2, 0.945, lr=0.01)]
    test = {"trial": 0, "images": 200, "top1": 0.86, "interval95": [0.805, 0.901]}
    paths, config = stored_run(tmp_path / "run", records, test=test)
    write_json(paths.test / "metrics.json", test)
    source = read_source(paths, config=config, records=records)
    assert "The runner-up, trial 1, has 0.9500, the same score." in story(source)
    said = " ".join(cautions(source, ()))
    assert "1 other trial has exactly the winning score" in said
    assert "2 other trials lie within one standard error" in said
    assert "The test split has few images (200): its interval is 0.0960 wide" in said
    assert "lies above the whole test interval" in said
    assert "The winner's lr 0.0999 lies at the upper end of its range" in said
    assert "dropout" not in said  # below 0 there is none
    assert "stopped the winner" not in said


def test_a_winner_that_was_stopped_early_is_told(tmp_path: Path) -> None:
    record = TrialRecord(number=0, params={}, status=Status.STOPPED, curve={1: 0.9, 2: 0.8}, score=0.9, best_epoch=1)
    paths, config = stored_run(tmp_path / "run", [record])
    source = read_source(paths, config=config, records=[record])
    said = " ".join(cautions(source, ()))
    assert f"stopped the winner at epoch 2 of {config.scheduler.max_epochs}; trained to its end" in said


def test_where_the_time_went_is_told_by_stage(tmp_path: Path) -> None:
    told = {"train_s": 100.0, "read_s": 25.0, "val_s": 15.0}
    paths, _ = stored_run(tmp_path / "run", [replace(record, **told) for record in drawn(2)])
    section = str(time_section(read_source(paths)))
    for stage, share in (("reading and augmenting images", 25), ("training steps", 60), ("validating", 15)):
        assert re.search(rf"of it, {stage}<.*?>{share} %", section, re.S), stage
