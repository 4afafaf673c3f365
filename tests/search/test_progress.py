"""A moment of a search, drawn here or told to a view elsewhere."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from cluster.job_view import JobView
from search.config import SearchConfig
from search.ledger import Ledger, Status, TrialRecord
from search.live import LiveView
from search.progress import EVENT, Best, Progress, from_event, line, panel

NOW = Progress(
    title="first",
    metric="val_top1",
    counts={"running": 2, "done": 0, "completed": 3},
    finished=3,
    max_trials=10,
    epochs=17,
    max_epochs=100,
    best=Best(score=0.91239, trial=4, epoch=2, params="lr=0.01  arch=[b]cnn[/b]"),
    elapsed_s=65.0,
    remaining_s=130.0,
)


@pytest.mark.parametrize("now", [NOW, replace(NOW, best=None, max_trials=None, max_epochs=None, remaining_s=None)])
def test_an_event_comes_through_as_it_was(now: Progress) -> None:
    event = now.to_event()
    assert "\n" not in event
    assert from_event(event) == now
    assert line(now) in event  # for a person who reads the log itself


@pytest.mark.parametrize(
    "text", ["", "best trials", EVENT, EVENT + "{}", EVENT + "[1]", EVENT + '{"text": 1, "best": 2}']
)
def test_any_other_line_is_none(text: str) -> None:
    assert from_event(text) is None


def test_the_clock_goes_on_between_events() -> None:
    later = NOW.later(200)
    assert (later.elapsed_s, later.remaining_s) == (265, 0)


def test_the_line() -> None:
    assert line(NOW) == (
        "3/10 trials: 2 running, 3 done, 0 stopped early, 0 failed; 17 of at most 100 epochs; "
        "best val_top1 0.9124 (trial 4); 1:05 elapsed, about 2:10 left"
    )


def shown(*lines: str, terminal: bool) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, color_system=None, highlight=False)
    with JobView(console) as view:
        for text in lines:
            view.show(text)
    return out.getvalue()


def test_without_a_terminal_events_become_lines() -> None:
    noted = replace(NOW, note="starting Ray")
    out = shown(
        "searching first [bold]",
        noted.to_event(),
        noted.to_event(),
        NOW.to_event(),
        "best trials",
        terminal=False,
    )
    assert out.splitlines() == ["searching first [bold]", "starting Ray", line(NOW), "best trials"]


def test_in_a_terminal_the_panel_of_a_local_search_is_drawn() -> None:
    out = io.StringIO()
    Console(file=out, width=100, color_system=None).print(panel(NOW))
    assert out.getvalue() in shown(NOW.to_event(), "best trials", terminal=True)
    assert "arch=[b]cnn[/b]" in out.getvalue()


def test_what_is_left_is_not_told_when_only_running_trials_are() -> None:
    """Many trials are stopped early; how long the last ones take, those do not tell."""
    config = SearchConfig.model_validate(
        {
            "task": {"data": {"name": "digits"}},
            "space": {"arch": "small_cnn"},
            "scheduler": {"max_epochs": 4},
            "budget": {"trials": 4},
        }
    )
    ledger = Ledger(metric="val_top1")
    view = LiveView(Console(file=io.StringIO()), config, ledger, title="x")
    for number, status in enumerate((Status.STOPPED, Status.RUNNING, Status.RUNNING)):
        ledger.put(TrialRecord(number=number, params={}, status=status))
    assert view.progress().remaining_s is not None
    ledger.put(TrialRecord(number=1, params={}, status=Status.STOPPED))
    ledger.put(TrialRecord(number=3, params={}, status=Status.RUNNING))
    assert view.progress().remaining_s is None
