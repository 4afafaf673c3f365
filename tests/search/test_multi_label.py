"""A search on images with several labels each, from a table of paths, streamed, some of them unreadable."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.search.cli import run

pytestmark = [pytest.mark.ray, pytest.mark.slow]

CORNERS = ("top_left", "top_right", "bottom_left", "bottom_right")
CORRUPT = 3


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 images of 16 x 16 pixels; a label says that a corner is bright."""
    folder = tmp_path_factory.mktemp("corners")
    rng = np.random.default_rng(0)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "labels"])
        for number in range(240):
            bright = rng.random(4) < 0.4
            pixels = rng.integers(0, 80, (16, 16, 3))
            for corner in np.flatnonzero(bright):
                row, column = 8 * (corner // 2), 8 * (corner % 2)
                pixels[row : row + 8, column : column + 8] += 120
            path = folder / f"{number:03d}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(path)
            if number < CORRUPT:
                path.write_bytes(path.read_bytes()[:60])
            names = [name for name, on in zip(CORNERS, bright, strict=True) if on]
            writer.writerow([path.name, "|".join(names)])
    return folder / "labels.csv"


def test_a_multi_label_search(table: Path, tmp_path: Path) -> None:
    space = tmp_path / "corners.yaml"
    space.write_text(f"""
task:
  data: {{name: csv, csv: {table}, label_column: labels, label_separator: "|", loading: stream, on_corrupt: skip}}
  metric: val_map
space:
  arch: cnn
  cnn_width: 8
  batch_size: 32
  lr: {{type: float, low: 3e-3, high: 1e-2, log: true}}
  loss: {{type: categorical, values: [auto, focal]}}
  class_weights: inverse
scheduler: {{max_epochs: 8, grace_period: 4}}
budget: {{trials: 3}}
""")
    status, out, err = run(space, "--name", "corners", "--storage-path", tmp_path / "results")
    assert (status, err) == (0, "")
    assert f"{CORRUPT} of 240 images cannot be read and are left out" in out
    assert "decoded in every epoch" in out
    assert "test exact match" in out
    folder = tmp_path / "results" / "corners"
    test = json.loads((folder / "test" / "metrics.json").read_text())
    assert test["map"] > 0.9
    assert (folder / "test" / "label_counts.csv").is_file()
    assert len(json.loads((folder / "environment.json").read_text())["data"]["skipped"]) == CORRUPT

    with (folder / "splits.csv").open() as file:
        of_test = [line for line in csv.DictReader(file) if line["split"] == "test"]
    image = table.parent / of_test[0]["name"]
    from search.predict import main

    assert main([str(folder), str(image), "--top", "4"]) == 0


def test_a_metric_for_other_labels_is_refused(table: Path, tmp_path: Path) -> None:
    space = tmp_path / "corners.yaml"
    data = f'{{name: csv, csv: {table}, label_column: labels, label_separator: "|", on_corrupt: skip}}'
    space.write_text(f"task: {{data: {data}}}\nspace: {{lr: 1e-3}}\nscheduler: {{max_epochs: 2}}\n")
    status, _, err = run(space, "--storage-path", tmp_path / "results")
    assert status == 2
    assert "task.metric: val_top1 is not defined for multilabel labels; use one of val_loss" in err
