"""A genetic sampler that sees the latest generations proposes what it proposes when it sees all trials."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.samplers import NSGAIIISampler, NSGAIISampler
from optuna.study import Study
from optuna.trial import TrialState

from search.generations import LatestGenerations
from search.sampler_views import FinishedTrials
from search.samplers import SeesView

POPULATION, TRIALS = 10, 200


def proposals(kind: type[NSGAIISampler | NSGAIIISampler], view: Any) -> list[dict[str, Any]]:
    """Of a search of two objectives whose trials end in another order than they begin, and in all ways."""
    sampler = SeesView(kind(seed=3, population_size=POPULATION), view)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    running: list[optuna.Trial] = []
    proposed = []
    for index in range(TRIALS):
        trial = study.ask()
        proposed.append({"x": trial.suggest_float("x", -2, 2), "y": trial.suggest_categorical("y", ["a", "b", "c"])})
        running.append(trial)
        if len(running) > 3:
            end(study, running.pop((index * 7) % 4), index)
    return proposed


def end(study: Study, trial: optuna.Trial, index: int) -> None:
    x = trial.params["x"]
    if index % 11 == 5:
        study.tell(trial, state=TrialState.FAIL)
    elif index % 13 == 6:
        trial.set_constraint("forbidden", 1.0)
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, [x * x, (x - 1) ** 2 + (trial.params["y"] == "b")])


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("kind", [NSGAIISampler, NSGAIIISampler])
def test_the_latest_generations_say_as_much_as_all(kind: type[NSGAIISampler | NSGAIIISampler]) -> None:
    shown: list[int] = []

    def latest(study: Study) -> Study:
        view = LatestGenerations(study, sampler=kind)
        few_of = view._few_of

        def noted(trials: Any) -> Any:
            few = few_of(trials)
            shown.append(len(few))
            return few

        view._few_of = noted  # type: ignore[method-assign]
        return view

    everything = proposals(kind, lambda study: FinishedTrials(study, fill=None, most=None))
    assert proposals(kind, latest) == everything
    assert 0 < max(shown) <= 6 * POPULATION


def test_a_search_that_goes_on_finds_its_generations() -> None:
    """A view made anew, as after an interruption, sees what the one before saw."""
    sampler = NSGAIISampler(seed=3, population_size=POPULATION)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)), n_trials=75)
    shown = {trial.number for trial in LatestGenerations(study, sampler=NSGAIISampler).trials}
    attrs = study._storage.get_study_system_attrs(study._study_id)
    parents = {each for number in (6, 7) for each in attrs[f"NSGAIISampler:parent:{number}"]}
    assert {trial.number for trial in study.trials if trial._trial_id in parents} <= shown
    assert set(range(50, 75)) <= shown
    assert len(shown) <= 6 * POPULATION
