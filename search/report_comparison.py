"""In what do several runs differ, and which of their numbers may be compared at all?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from search.domains import Domain, Param, dump_param
from search.importance import importance_problem, parameter_importances
from search.report_figures import progress
from search.report_html import number
from search.report_source import ReportSource
from search.report_story import interval_metric, test_metric

_ABSENT = "–"
_TOP = 4
_SHARES_OF_EPOCHS = (0.25, 0.5, 0.75, 1.0)


def obstacles(runs: Sequence[ReportSource]) -> list[str]:
    """Why numbers of these runs cannot be taken for each other, in sentences; the gravest first."""
    found = []
    if len(metrics := _by_value(runs, lambda run: run.metric)) > 1:
        found.append(f"The runs have different metrics ({_told(metrics)}): their scores are not compared.")
    if len(data := _by_value(runs, _fingerprint)) > 1:
        found.append(
            f"The runs are about different images (data fingerprint {_told(data)}): a difference between their scores "
            "says nothing about their settings."
        )
    if len(data) == 1 and len(splits := _by_value(runs, _split)) > 1:
        found.append(
            f"The images were divided differently ({_told(splits)}): scores are of different validation and test "
            "images."
        )
    unfinished = [run.paths.name for run in runs if run.state != "finished"]
    if unfinished:
        found.append(f"Not finished: {', '.join(unfinished)}; their scores may still rise.")
    return found


def comparable(runs: Sequence[ReportSource]) -> bool:
    """Whether the runs have one metric, so that their scores have a common scale."""
    return len({run.metric for run in runs}) == 1


def differences(runs: Sequence[ReportSource]) -> list[tuple[str, list[str]]]:
    """The settings that are not the same in all runs: dotted key, and the value in each run."""
    settings = [_settings(run) for run in runs]
    keys = dict.fromkeys(key for each in settings for key in each)
    rows = [(key, [each.get(key, _ABSENT) for each in settings]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def results(runs: Sequence[ReportSource]) -> list[list[str]]:
    """A row a run: name, state, trials, epochs, seconds, best score, its trial, test score with its interval."""
    return [
        [
            run.paths.name,
            run.state,
            str(len(run.records)),
            f"{sum(record.trained_epochs for record in run.records):,}",
            f"{run.summary['elapsed_s']:.0f}" if "elapsed_s" in run.summary else "",
            run.metric,
            "" if run.winner is None else number(run.winner.score),
            "" if run.winner is None else str(run.winner.number),
            _test(run),
        ]
        for run in runs
    ]


RESULT_COLUMNS = ("run", "state", "trials", "epochs", "time (s)", "metric", "best", "trial", "test (95 % interval)")


def verdicts(runs: Sequence[ReportSource]) -> list[str]:
    """What the test intervals say about each pair of runs that are about the same images; nothing without tests."""
    tested = [run for run in runs if run.test is not None]
    found = []
    for one, other in combinations(tested, 2):
        if one.test is None or other.test is None or _fingerprint(one) != _fingerprint(other):
            continue
        name = interval_metric(one)
        if name != interval_metric(other):
            continue
        (low, high), (other_low, other_high) = one.test["interval95"], other.test["interval95"]
        names = f"{one.paths.name} and {other.paths.name}"
        if low <= other_high and other_low <= high:
            found.append(
                f"The test intervals ({name}) of {names} overlap: no difference between their winners is shown."
            )
        else:
            better = one if low > other_high else other
            found.append(f"The test intervals ({name}) of {names} do not overlap: {better.paths.name} is better.")
    return found


def best_at(runs: Sequence[ReportSource]) -> tuple[list[int], list[list[str]]]:
    """The best score that each run had after as many epochs: the epochs, and a row of scores a run.

    The epochs are quarters of those that the shortest run trained.
    """
    curves = [progress(run.records, metric=run.metric, times=run.times) for run in runs]
    shortest = min((curve[-1][1] for curve in curves if curve), default=0)
    marks = sorted({round(shortest * share) for share in _SHARES_OF_EPOCHS} - {0})
    rows = []
    for curve in curves:
        reached = [[score for _, epochs, score in curve if epochs <= mark] for mark in marks]
        rows.append([number(scores[-1]) if scores else _ABSENT for scores in reached])
    return marks, rows


def important_parameters(run: ReportSource) -> str:
    """The parameters of a run that mattered more than chance, most important first; why none, where there are none."""
    importances = parameter_importances(run.records, domains=run.domains, metric=run.metric)
    if not importances:
        return importance_problem(run.records, domains=run.domains) or "none"
    sound = [each for each in importances if each.share > each.noise][:_TOP]
    return ", ".join(f"{each.name} {100 * each.share:.0f} %" for each in sound) or "none stands out from chance"


def _settings(run: ReportSource) -> dict[str, str]:
    config = run.config.model_dump(mode="json")
    space = {name: _param(param) for name, param in run.config.space.items()}
    whole = {**config, "space": space, "data fingerprint": _fingerprint(run)}
    whole.pop("name")
    packages = run.environment.get("packages", {})
    return dict(_flat({**whole, "commit": run.environment.get("git_commit"), "packages": packages}))


def _param(param: Param) -> Any:
    """A range in words, and what else is said of it: a condition, scaling, prior, tags."""
    if not isinstance(param, Domain):
        return param
    shown = {"type", "values", "low", "high", "log", "step"}
    besides = {name: value for name, value in dump_param(param).items() if name not in shown}
    return param.describe() + "".join(f", {name}: {value}" for name, value in besides.items())


def _flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [pair for key, each in value.items() for pair in _flat(each, f"{prefix}.{key}" if prefix else str(key))]
    return [(prefix, "none" if value is None else str(value))]


def _fingerprint(run: ReportSource) -> str:
    return str(run.environment.get("data", {}).get("fingerprint", "unknown"))


def _split(run: ReportSource) -> str:
    split = run.config.task.split
    return f"val {split.val:g}, test {split.test:g}, seed {split.seed}"


def _by_value(runs: Sequence[ReportSource], value: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for run in runs:
        found.setdefault(str(value(run)), []).append(run.paths.name)
    return found


def _told(groups: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{', '.join(names)}: {value}" for value, names in groups.items())


def _test(run: ReportSource) -> str:
    found = test_metric(run)
    if run.test is None or found is None:
        return ""
    low, high = run.test["interval95"]
    name, value = found
    kept = interval_metric(run)
    shown = f"{name} {number(value)}"
    return f"{shown} ({number(low)} to {number(high)})" if name == kept else f"{shown} ({kept} {low:.4f} to {high:.4f})"
