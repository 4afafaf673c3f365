"""Which class does the best model of a run see in these images? `python -m search.predict RUN IMAGE...`"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search.storage import add_storage_path, find_run, storage_root
from trainables.errors import ConfigError, DataError, VistuneError, first_line

if TYPE_CHECKING:
    import torch

# Of a label that is taken for present.
_PRESENT = 0.5
BATCH = 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints path, class and probability of every image, as tab-separated lines.

    Returns:
        0; 1 where some images could not be read (the others are classified); 2 for a run without a model.
    """
    parser = argparse.ArgumentParser(prog="python -m search.predict", description=__doc__)
    parser.add_argument("run", help="the run's folder or name, for instance results/small_dataset-1")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files, or folders of them")
    parser.add_argument(
        "--top",
        type=_count,
        help="classes to print an image (default 1, or all labels of 0.5 or more)",
    )
    parser.add_argument("--device", default=None, help="cpu, cuda, cuda:1...; by default a GPU where there is one")
    add_storage_path(parser)
    options = parser.parse_args(arguments)
    try:
        return classify(
            find_run(options.run, storage_path=storage_root(options.storage_path)).best_model,
            list(_image_files(options.images)),
            top=options.top,
            device=options.device,
        )
    except VistuneError as error:
        print(error, file=sys.stderr)
        return 2


def classify(model_folder: Path, images: list[Path], *, top: int | None, device: str | None) -> int:
    """Classifies image files with an exported model and prints a line an image and class."""
    import torch

    from trainables.decode import decode_image
    from trainables.evaluate import class_probabilities
    from trainables.exported import load_model

    if not images:
        raise DataError("no image was found: the folders that were given hold none; give image files, or other folders")
    target = _device(device)
    exported = load_model(model_folder, device=target)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files may be any bytes
    writer = csv.writer(sys.stdout, delimiter="\t", lineterminator="\n")
    failed = 0
    for start in range(0, len(images), BATCH):
        decoded, paths = [], []
        for path in images[start : start + BATCH]:
            try:
                pixels = decode_image(
                    path,
                    image_size=exported.image_size,
                    channels=exported.in_chans,
                    interpolation=exported.interpolation,
                )
            except DataError as error:
                print(error, file=sys.stderr)
                failed += 1
                continue
            decoded.append(torch.from_numpy(pixels))
            paths.append(path)
        if not decoded:
            continue
        batch = torch.stack(decoded).permute(0, 3, 1, 2).to(target)
        with torch.inference_mode():
            probabilities = class_probabilities(exported.model(exported.preprocess(batch)), kind=exported.kind)
        for path, row in zip(paths, probabilities.tolist(), strict=True):
            for index in _shown(row, kind=exported.kind, top=top):
                writer.writerow([path, exported.class_names[index], f"{row[index]:.4f}"])
    return 1 if failed else 0


def _shown(probabilities: Sequence[float], *, kind: str, top: int | None) -> list[int]:
    """Classes to print, the most probable first; at least one, so that every image is there."""
    order = sorted(range(len(probabilities)), key=lambda index: -probabilities[index])
    if top is None:
        top = 1 if kind != "multilabel" else max(1, sum(each >= _PRESENT for each in probabilities))
    return order[:top]


def _count(given: str) -> int:
    count = int(given)
    if count < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, found {count}")
    return count


def _device(name: str | None) -> torch.device:
    """The device of that name; a GPU by default, where there is one.

    Raises:
        ConfigError: if there is none of that name.
    """
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"--device: {name} cannot be used here ({first_line(error)}); give cpu, cuda or cuda:N"
        ) from error
    return device


def _image_files(paths: Iterable[Path]) -> Iterable[Path]:
    from trainables.sources import IMAGE_SUFFIXES

    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        else:
            yield path


if __name__ == "__main__":
    sys.exit(main())
