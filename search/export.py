"""How does a model leave vistune? `python -m search.export RUN` writes it as safetensors, torch.export and ONNX."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.results import RunPaths, write_json, write_text
from search.storage import add_storage_path, find_run, storage_root
from trainables.errors import ConfigError, VistuneError, first_line
from trainables.object_store import publish_folder, remove

if TYPE_CHECKING:
    from search.export_formats import Written
    from trainables.exported import ExportedModel

_CARD = "model_card.json"
_IMAGES = 32  # on which a round trip is checked


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the best model of a run, or that of any of its trials, and prints what was written.

    Returns:
        0; 1 where some format could not be written; 2 for a run, trial or format that cannot be used.
    """
    parser = argparse.ArgumentParser(prog="python -m search.export", description=__doc__)
    parser.add_argument("run", help="the run's folder or name, for instance results/small_dataset-1")
    parser.add_argument("--trial", type=int, metavar="N", help="export this trial (default: the winner)")
    parser.add_argument("--formats", default="safetensors,torch,onnx", help="default: safetensors,torch,onnx")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="default: export/ in the run's folder")
    add_storage_path(parser)
    options = parser.parse_args(arguments)
    formats = tuple(dict.fromkeys(name.strip() for name in options.formats.split(",") if name.strip()))
    try:
        paths = find_run(options.run, storage_path=storage_root(options.storage_path))
        folder = options.output or paths.root / "export" / ("best" if options.trial is None else f"{options.trial:04d}")
        written, failed = export(paths, folder, trial=options.trial, formats=formats)
    except VistuneError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{folder}: nothing can be written there ({first_line(error)}); give another --output", file=sys.stderr)
        return 2
    for each in written:
        print(
            f"{each.format:<12} {', '.join(each.files)}: read back, probabilities differ by at most "
            f"{each.difference:.1g}, same class for {each.same_class:.1%} of the images"
        )
    for name, reason in failed.items():
        print(f"{name:<12} not written: {reason}", file=sys.stderr)
    print(f"{'how to use':<12} {folder / 'README.md'}")
    return 1 if failed else 0


def export(
    paths: RunPaths, folder: Path, *, trial: int | None, formats: tuple[str, ...]
) -> tuple[list[Written], dict[str, str]]:
    """Writes a model into a folder, with a description of how to use it.

    Returns:
        What was written; and for each format that could not be, why.

    Raises:
        ConfigError: if the run has no such trial, its weights are gone, or a format is not known or not installed.
        CheckpointError: if the run has no best model yet.
        DataError: if the images are needed, for a trial other than the winner, and cannot be read.
    """
    import torch

    from search.export_formats import check_formats, check_images, write_formats
    from trainables.exported import DESCRIPTION, WEIGHTS, load_model

    check_formats(formats)
    if folder.resolve() == paths.best_model.resolve():
        raise ConfigError(f"--output: {folder} is the run's own model; give another folder")
    if trial is None:
        exported = load_model(paths.best_model, device=torch.device("cpu"))
        _remove_earlier(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name in (DESCRIPTION, WEIGHTS):
            shutil.copyfile(paths.best_model / name, folder / name)
    else:
        _write_trial(paths, folder, number=trial)
        exported = load_model(folder, device=torch.device("cpu"))
    images = check_images(exported, _validation_pixels(paths))
    written, failed = write_formats(folder, exported, images, formats=formats)
    write_json(folder / _CARD, _card(paths, exported, trial=trial, written=written))
    write_text(folder / "README.md", usage(exported, written))
    publish_folder(folder)  # which may be that of a run in an object store
    return written, failed


def usage(exported: ExportedModel, written: Sequence[Written]) -> str:
    """A page that says what the model takes and gives, with code for each format."""
    size, channels, classes = exported.spec.size, exported.in_chans, len(exported.class_names)
    meaning = "probability of each label" if exported.kind == "multilabel" else "probability of each class"
    given = exported.image_size
    resized = (
        ""
        if size == given
        else f" What is then {given} x {given} px is\nresized as a whole to {size} x {size} px "
        f"({exported.spec.interpolation}, antialiased, kept between 0 and 1): the\nnetwork has seen no other crop."
    )
    head = (
        f"# Model\n\nInput `images`: (B, {channels}, {size}, {size}) float32, pixel values from 0 to 1,\n"
        f"{'RGB' if channels == 3 else f'{channels} channel(s)'}; normalisation is part of the graph.\n"
        f"Output `probabilities`: (B, {classes}) float32, the {meaning}, in the order of `class_names` in\n"
        f"`model_card.json`.\n\nImage files are resized with {exported.interpolation} interpolation so that the "
        f"shorter side is {given} px,\nand cropped to the centre, as `python -m search.predict` does.{resized}\n"
    )
    there = {each.format for each in written}
    shape = f"(1, {channels}, {size}, {size})"
    return head + "".join(text.format(shape) for name, text in _USAGE.items() if name in there)


_USAGE = {
    "onnx": """
## ONNX

```python
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
images = np.zeros({}, np.float32)
(probabilities,) = session.run(None, {{"images": images}})
```
""",
    "torch": """
## torch.export

```python
import torch
model = torch.export.load("model.pt2").module()
probabilities = model(torch.zeros({}))
```
""",
    "safetensors": """
## safetensors

`model.safetensors` has the weights, `model.json` how to build the network; vistune does both, and normalises.

```python
import torch
from pathlib import Path
from trainables.evaluate import class_probabilities
from trainables.exported import load_model
exported = load_model(Path("."), device=torch.device("cpu"))
pixels = torch.zeros({}, dtype=torch.uint8)  # from 0 to 255
probabilities = class_probabilities(exported.model(exported.preprocess(pixels)), kind=exported.kind)
```
""",
}


def _remove_earlier(folder: Path) -> None:
    """Removes the models that an earlier export wrote there: in a format that is not written now one would be old."""
    from search.export_formats import FORMATS

    if (folder / _CARD).is_file():  # else it is somebody else's folder
        for name in (name for each in FORMATS.values() for name in each.files):
            remove(folder / name)


def _write_trial(paths: RunPaths, folder: Path, *, number: int) -> None:
    """The best weights of a trial, as the run's best model is written."""
    from search.report_source import read_source
    from search.trial_place import require_recorded_images
    from trainables.checkpoint import TrialFiles
    from trainables.data import load_data
    from trainables.exported import export_model
    from trainables.splits import make_splits

    source = read_source(paths)
    record = next((each for each in source.records if each.number == number), None)
    if record is None:
        numbers = [each.number for each in source.records]
        span = f"{min(numbers)} to {max(numbers)}" if numbers else "none"
        raise ConfigError(f"--trial: {paths.name} has no trial {number}; its trials are {span}")
    files = TrialFiles(paths.trial(number))
    files.fetch()
    if not files.best_weights.is_file():
        raise ConfigError(
            f"--trial: the weights of trial {number} ({record.status.value}) are not there; keep more with the section "
            "keep of the space, or choose another trial from leaderboard.csv"
        )
    config = source.config.trial_config(record.params)
    data = load_data(config.data)
    require_recorded_images(paths, config.data, data.fingerprint)
    rows = make_splits(data, config.split).train
    _remove_earlier(folder)
    export_model(folder, config, trial_dir=paths.trial(number), data=data, train_rows=rows)


def _validation_pixels(paths: RunPaths) -> Any:
    """Some validation images, (B, H, W, C) uint8; None where the images are gone."""
    from search.config import load_search
    from trainables.data import load_data
    from trainables.splits import make_splits

    config = load_search(paths.config)
    try:
        data = load_data(config.task.data)
        return data.take(make_splits(data, config.task.split).val[:_IMAGES])
    except (VistuneError, OSError):
        return None


def _card(paths: RunPaths, exported: ExportedModel, *, trial: int | None, written: Sequence[Written]) -> dict[str, Any]:
    """What is to be known of the model, for machines."""
    summary = json.loads(paths.summary.read_text(encoding="utf-8")) if paths.summary.is_file() else {}
    return {
        "run": paths.name,
        "trial": (summary.get("test") or {}).get("trial") if trial is None else trial,
        "input": {
            "name": "images",
            "shape": ["B", exported.in_chans, exported.spec.size, exported.spec.size],
            "dtype": "float32",
            "range": [0, 1],
            # Files: shorter side to so many pixels, cropped to the centre; then the whole to the network's size.
            "image_size": exported.image_size,
            "interpolation": exported.interpolation,
            "network_interpolation": exported.spec.interpolation,
        },
        "output": {"name": "probabilities", "shape": ["B", len(exported.class_names)], "dtype": "float32"},
        "class_names": list(exported.class_names),
        "labels": exported.kind,
        "test": summary.get("test") if trial is None else None,
        "formats": {
            each.format: {"files": list(each.files), "largest_difference": each.difference} for each in written
        },
    }


if __name__ == "__main__":
    sys.exit(main())
