"""What do the augmentations of a search look like? `python -m search.samples spaces/small_dataset.yaml`"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.errors import ConfigError, VistuneError

if TYPE_CHECKING:
    import numpy as np
    from PIL.ImageDraw import ImageDraw

    from search.config import SearchConfig
    from trainables.config import TrialConfig

# Fields that change how an image looks, as shown beside a row where they are searched or set.
_FIELDS = (
    "crop", "crop_padding", "crop_scale", "hflip", "vflip", "rotation", "color_jitter", "erasing",
    "randaugment_num_ops", "randaugment_magnitude", "augmix_severity", "augmix_width",
)  # fmt: skip
_CELL = 128  # smaller images are enlarged to at most, larger ones shrunk to exactly this side in pixels
_GAP = 4
_MARGIN = 200  # for the labels
_LINE = 15  # height of a line of text
_BACKGROUND, _INK, _FAINT = (255, 255, 255), (20, 20, 20), (110, 110, 110)
_DRAWS = 1000


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws training images under each augmentation into a PNG file, and prints its path.

    Returns:
        0; 2 for a space, name, data set or file that cannot be used.
    """
    parser = argparse.ArgumentParser(prog="python -m search.samples", description=__doc__)
    parser.add_argument("space", type=Path, help="the search, for instance spaces/small_dataset.yaml")
    parser.add_argument(
        "--policy",
        nargs="+",
        metavar="NAME",
        help="augmentations to draw, built in or of the space; by default all that its parameter augment may take",
    )
    parser.add_argument("--out", type=Path, metavar="FILE.png", help="by default NAME-samples.png, here")
    parser.add_argument("--images", type=int, default=8, help="images to draw (default 8)")
    parser.add_argument("--seed", type=int, default=0, help="which images, hyperparameters and draws (default 0)")
    options = parser.parse_args(arguments)
    if options.images < 1 or options.seed < 0:
        parser.error("--images must be at least 1 and --seed at least 0")
    try:
        path = write_samples(
            options.space, policies=options.policy, out=options.out, num_images=options.images, seed=options.seed
        )
    except VistuneError as error:
        print(error, file=sys.stderr)
        return 2
    print(path)
    return 0


def write_samples(space: Path, *, policies: Sequence[str] | None, out: Path | None, num_images: int, seed: int) -> Path:
    """The picture of `main` as a PNG file; returns its path.

    Raises:
        ConfigError: for a bad space or policy, or a file that cannot be written.
        DataError: if the images cannot be used.
    """
    from search.config import load_search

    config = load_search(space)
    path = out or Path(f"{config.name}-samples.png")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"--out {path}: there is no folder {path.parent}; make it, or name another")
    trials = sample_trials(config, policies=policies, seed=seed)
    from PIL import Image

    from trainables.data import load_data
    from trainables.splits import make_splits

    data = load_data(config.task.data)
    train = make_splits(data, config.task.split).train.tolist()
    rows = random.Random(seed).sample(train, min(num_images, len(train)))
    grid = sample_grid(data.take(_as_rows(rows)), labelled(trials, config))
    try:
        Image.fromarray(grid).save(path, format="PNG")
    except OSError as error:
        raise ConfigError(f"--out {path}: cannot be written ({error.strerror}); name another file") from error
    return path


def sample_trials(
    config: SearchConfig, *, policies: Sequence[str] | None = None, seed: int = 0
) -> dict[str, TrialConfig]:
    """For each augmentation one trial of the search that has it, drawn uniformly from the space.

    Args:
        config: the search.
        policies: names of augmentations; by default all that the space may choose.
        seed: of the drawn hyperparameters, and of the trials' own randomness.

    Raises:
        ConfigError: if a name is no augmentation, or no trial of the space may have it.
    """
    from search.domains import CategoricalDomain
    from trainables.hyperparameters import BUILTIN_AUGMENTATIONS
    from trainables.nearest import nearest

    domain = config.search_space.domains.get("augment")
    named = domain.values if isinstance(domain, CategoricalDomain) else (_draw(config, None, seed).augment,)
    known = list(dict.fromkeys([*BUILTIN_AUGMENTATIONS, *config.augmentations]))
    chosen = [str(name) for name in (policies or named)]
    for name in chosen:
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {' or '.join(near)}?" if near else f"use one of {', '.join(known)}"
            raise ConfigError(f"--policy {name}: unknown augmentation; {hint}")
    return {name: _draw(config, name, seed) for name in dict.fromkeys(chosen)}


def labelled(trials: Mapping[str, TrialConfig], config: SearchConfig) -> dict[str, TrialConfig]:
    """The trials under labels of several lines: the augmentation, then what is searched or set of its strength."""
    from trainables.conditions import has_effect
    from trainables.hyperparameters import Hyperparameters

    searched = config.search_space.searched
    labels: dict[str, TrialConfig] = {}
    for name, trial in trials.items():
        params = {field: getattr(trial, field) for field in Hyperparameters.model_fields}
        shown = [
            f"{field} {_text(params[field])}"
            for field in _FIELDS
            if has_effect(field, params)
            and (field in searched or params[field] != Hyperparameters.model_fields[field].default)
        ]
        labels["\n".join([name, *shown])] = trial
    return labels


def sample_grid(images: np.ndarray, trials: Mapping[str, TrialConfig]) -> np.ndarray:
    """A picture of images as they are, and below them a row for each trial with its augmentation of them.

    Args:
        images: (B, h, w, C) uint8, C of 1 or 3.
        trials: by label; a label's first line is the row's name, further ones are smaller.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ConfigError: if an augmentation does not take such images.
    """
    import numpy as np
    import torch
    from PIL import Image, ImageDraw

    from trainables.augment import build_augment

    batch = torch.from_numpy(images).permute(0, 3, 1, 2)
    rows = {"original": images}
    for label, trial in trials.items():
        augment = build_augment(trial, num_images=len(images))
        augment.start_epoch(0)
        rows[label] = augment(batch, torch.arange(len(images))).permute(0, 2, 3, 1).contiguous().numpy()
    height, width = _cell_size(*images.shape[1:3])
    heights = [max(height, _LINE * (label.count("\n") + 1) + 3) + _GAP for label in rows]
    size = (_MARGIN + len(images) * (width + _GAP), _GAP + sum(heights))
    picture = Image.new("RGB", size, _BACKGROUND)
    top = _GAP
    for (label, row), step in zip(rows.items(), heights, strict=True):
        _write_label(ImageDraw.Draw(picture), label, top)
        for column, pixels in enumerate(row):
            picture.paste(_cell(pixels, height, width), (_MARGIN + column * (width + _GAP), top))
        top += step
    return np.asarray(picture)


def _draw(config: SearchConfig, policy: str | None, seed: int) -> TrialConfig:
    from search.draws import UniformDraw

    class WithPolicy(UniformDraw):
        """Chooses the policy where the space may, and draws everything else."""

        def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
            return policy if name == "augment" and policy in choices else super().suggest_categorical(name, choices)

    rng = random.Random(seed)
    reason: str | None = None
    for _ in range(_DRAWS):
        params = config.search_space.suggest(WithPolicy(rng))
        reason = config.search_space.forbidden(params)
        if reason is None:
            trial = config.trial_config({**params, **({} if policy is None else {"augment": policy})})
            return trial.model_copy(update={"seed": seed})
    raise ConfigError(f"--policy {policy}: no trial of the space may have it, found {reason} forbidden; leave it out")


def _as_rows(rows: list[int]) -> np.ndarray:
    import numpy as np

    return np.array(rows, np.int64)


def _cell_size(height: int, width: int) -> tuple[int, int]:
    """Small images are enlarged by a whole factor, so that their pixels stay squares of one size."""
    side = max(height, width)
    scale = _CELL // side if side <= _CELL else _CELL / side
    return max(1, round(height * scale)), max(1, round(width * scale))


def _cell(pixels: np.ndarray, height: int, width: int) -> Any:
    from PIL import Image

    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    enlarged = height >= pixels.shape[0]
    return image.resize((width, height), Image.Resampling.NEAREST if enlarged else Image.Resampling.BOX)


def _write_label(draw: ImageDraw, label: str, top: int) -> None:
    from PIL import ImageFont

    for number, line in enumerate(label.split("\n")):
        font = ImageFont.load_default(size=14 if number == 0 else 11)
        draw.text(
            (_GAP, top + number * _LINE + (3 if number else 0)), line, fill=_INK if number == 0 else _FAINT, font=font
        )


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
