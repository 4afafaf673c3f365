"""Small image folders for tests; classes differ by brightness so that a model can learn them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, *, level: int, size: tuple[int, int] = (8, 8), mode: str = "RGB", seed: int = 0) -> None:
    """One image of (width, height) pixels around a brightness `level` in 0 to 255; the suffix decides the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = len(Image.new(mode, (1, 1)).getbands())
    noise = np.random.default_rng([seed, level]).integers(-20, 21, (size[1], size[0], channels))
    pixels = np.clip(level + noise, 0, 255).astype(np.uint8)
    Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels, mode=None).convert(mode).save(path)


def write_classes(
    folder: Path, counts: Mapping[str, int], *, size: tuple[int, int] = (8, 8), mode: str = "RGB", suffix: str = ".png"
) -> Path:
    """Class folders with the given number of images each; returns the folder."""
    for number, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        level = round(255 * (number + 0.5) / len(counts))
        for index in range(count):
            write_image(folder / name / f"{index:03d}{suffix}", level=level, size=size, mode=mode, seed=index)
    return folder
