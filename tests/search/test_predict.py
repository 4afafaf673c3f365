"""Which classes a prediction prints."""

from __future__ import annotations

import pytest

from search.predict import _shown


@pytest.mark.parametrize(
    ("probabilities", "kind", "top", "shown"),
    [
        ([0.2, 0.7, 0.1], "multiclass", None, [1]),
        ([0.2, 0.7, 0.1], "multiclass", 2, [1, 0]),
        ([0.2, 0.7, 0.1], "multiclass", 9, [1, 0, 2]),
        ([0.6, 0.7, 0.1], "multilabel", None, [1, 0]),
        ([0.3, 0.2, 0.1], "multilabel", None, [0]),
        ([0.6, 0.7, 0.1], "multilabel", 1, [1]),
    ],
)
def test_classes_that_are_shown(probabilities: list[float], kind: str, top: int | None, shown: list[int]) -> None:
    assert _shown(probabilities, kind=kind, top=top) == shown
