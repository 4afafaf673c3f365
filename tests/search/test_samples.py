"""The picture of a search's augmentations, from the command line and as a function."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from search.config import load_search
from search.samples import labelled, main, sample_grid, sample_trials
from tests.search.cli import write_space
from trainables.config import DataConfig, TrialConfig

SPACE = {
    "arch": "small_cnn",
    "augment": {"type": "categorical", "values": ["none", "basic", "randaugment", "dim"]},
    "randaugment_magnitude": {"type": "int", "low": 3, "high": 20},
    "rotation": {"type": "float", "low": 1.0, "high": 20.0},
}
DIM = {"dim": [{"RandomBrightnessContrast": {"brightness_limit": [-0.6, -0.5], "contrast_limit": [0, 0], "p": 1.0}}]}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_draws_what_the_space_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = write_space(tmp_path, space=SPACE, augmentations=DIM)
    out = tmp_path / "grid.picture"  # PNG whatever the name
    assert main([str(space), "--out", str(out), "--images", "3", "--seed", "4"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    with Image.open(out) as picture:
        assert picture.format == "PNG"
        grid = np.asarray(picture)
    # 8 x 8 digits enlarged by 16; a row for the originals and each of four augmentations.
    original, none, basic, rand, dim = (grid[top : top + 128, -132:-4, 0] for top in rows_of(grid))
    assert np.array_equal(original, np.kron(original[::16, ::16], np.ones((16, 16), np.uint8)))
    assert np.array_equal(original, none)
    assert not np.array_equal(original, basic)
    assert not np.array_equal(basic, rand)
    assert 0 < dim.max() < 0.6 * original.max()

    again = tmp_path / "again.png"
    assert main([str(space), "--out", str(again), "--images", "3", "--seed", "4"]) == 0
    assert again.read_bytes() == out.read_bytes()


def rows_of(grid: np.ndarray) -> list[int]:
    """First pixel rows of the cells: where the column of the first cell stops being background."""
    filled = (grid[:, 200:328] != 255).any(axis=(1, 2))
    return np.flatnonzero(filled & ~np.roll(filled, 1)).tolist()


def test_trials_are_of_the_space(tmp_path: Path) -> None:
    config = load_search(write_space(tmp_path, space=SPACE, augmentations=DIM))
    trials = sample_trials(config, seed=2)
    assert list(trials) == ["none", "basic", "randaugment", "dim"]
    assert all(trial.augment == name for name, trial in trials.items())
    assert trials["randaugment"].randaugment_magnitude in range(3, 21)
    assert 1 <= trials["randaugment"].rotation <= 20
    assert trials != sample_trials(config, seed=3)
    none, basic, rand, dim = labelled(trials, config)
    assert (none, dim) == ("none", "dim")
    assert basic.split("\n")[1].startswith("rotation ")
    assert f"randaugment_magnitude {trials['randaugment'].randaugment_magnitude}" in rand.split("\n")
    # Built-in augmentations can be asked for where the space does not name them.
    assert sample_trials(config, policies=["augmix"])["augmix"].augment == "augmix"


@pytest.mark.parametrize(("height", "width", "channels"), [(8, 8, 1), (20, 30, 3), (150, 300, 3)])
def test_grid_of_any_images(height: int, width: int, channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, height, width, channels), dtype=np.uint8)
    grid = sample_grid(images, {"first": TrialConfig(data=DataConfig(name="digits"), augment="basic")})
    assert grid.dtype == np.uint8
    assert grid.ndim == 3
    assert grid.shape[2] == 3
    assert 200 + 2 * 64 < grid.shape[1] <= 200 + 2 * 132
    assert len(rows_of(grid)) == 2


def test_mistakes_are_told(tmp_path: Path) -> None:
    space = write_space(tmp_path, space=SPACE, augmentations=DIM)
    for arguments, message in (
        ((space, "--policy", "randaugmnt"), "--policy randaugmnt: unknown augmentation; did you mean randaugment"),
        ((space, "--out", tmp_path / "absent" / "x.png"), "absent/x.png: there is no folder"),
        ((tmp_path / "absent.yaml",), "absent.yaml"),
        ((space, "--images", "0"), "--images must be at least 1"),
    ):
        command = [sys.executable, "-m", "search.samples", *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert result.returncode == 2, result.stderr
        assert message in result.stderr
        assert "Traceback" not in result.stderr
        assert result.stdout == ""


def test_looks_at_real_photographs(tmp_path: Path) -> None:
    folder = Path(__file__).parents[3] / "shared" / "data" / "cifar10-5k"
    if not folder.is_dir():
        pytest.skip("the CIFAR-10 images of shared/data are absent")
    task = {"data": {"name": "folder", "root": str(folder)}}
    space = write_space(tmp_path, task=task, space={"arch": "small_cnn", "augment": "trivialaugment"})
    out = tmp_path / "grid.png"
    assert main([str(space), "--out", str(out), "--images", "5"]) == 0
    grid = np.asarray(Image.open(out))
    assert len(rows_of(grid)) == 2
    assert (grid[:, 200:].std(axis=2) > 5).mean() > 0.2  # in colour
