"""The page of all fields says what the models say."""

from __future__ import annotations

from pathlib import Path

from search.fields import fields_page
from trainables.conditions import CONDITIONS
from trainables.hyperparameters import Hyperparameters

PAGE = Path(__file__).parents[2] / "spaces" / "README.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == fields_page(), "run: python -m search.fields > spaces/README.md"


def test_every_field_says_what_it_means_and_when_it_counts() -> None:
    lines = {line.split("`")[1]: line for line in fields_page().splitlines() if line.startswith("| `")}
    for name, field in Hyperparameters.model_fields.items():
        assert field.description and field.description in lines[name].replace("\\|", "|")
    for name, condition in CONDITIONS.items():
        assert condition.words in lines[name]
        assert {name, *condition.parents} <= set(Hyperparameters.model_fields)
