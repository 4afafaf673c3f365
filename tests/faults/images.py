"""Images for the searches that are disturbed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

_PER_CLASS = 60


def write_digits(root: Path) -> None:
    """Some of scikit-learn's digits as files in class folders, so that nodes decode them and keep what they decoded."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for label in range(10):
        folder = root / str(label)
        folder.mkdir(parents=True)
        for index, image in enumerate(digits.images[digits.target == label][:_PER_CLASS]):
            pixels = np.rint(image * (255 / 16)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{index:03d}.png")
