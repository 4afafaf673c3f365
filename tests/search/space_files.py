"""A small search file, and how tests write, break and read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.config import SearchConfig, load_search
from trainables.errors import ConfigError

SHIPPED = sorted((Path(__file__).parents[2] / "spaces").glob("*.yaml"))

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


def write(folder: Path, text: str, *, name: str = "small.yaml") -> Path:
    """The text as a file."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path, *overrides: str) -> list[str]:
    """The lines of the error with which a file is refused."""
    with pytest.raises(ConfigError) as caught:
        load_search(path, overrides=overrides)
    return str(caught.value).split("\n")


def search_of(folder: Path, *, space: str, **sections: str) -> SearchConfig:
    """A search on digits with this space, each section as YAML on one line."""
    return load_search(space_file(folder, space=space, **sections))


def space_file(folder: Path, *, space: str, **sections: str) -> Path:
    """The same as a file: `space` is on line 1, the other sections follow, one a line."""
    lines = {
        "space": space,
        "task": "{data: {name: digits}}",
        "scheduler": "{max_epochs: 5}",
        "budget": "{trials: 10}",
        **sections,
    }
    return write(folder, "".join(f"{name}: {text}\n" for name, text in lines.items()))
