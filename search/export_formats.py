"""How is a trained model written for use elsewhere? Each format is read back and compared with the original."""

from __future__ import annotations

import importlib.util
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from trainables.errors import ConfigError, ModelError
from trainables.evaluate import class_probabilities
from trainables.exported import DESCRIPTION, WEIGHTS, ExportedModel, load_model
from trainables.nearest import nearest

# Largest difference of a probability between the original and what was read back: rounding of fp32 in another order.
TOLERANCE = 1e-4

# A protocol buffer holds at most 2 GiB; above this the weights of an ONNX model go into a file beside it.
_ONNX_IN_ONE_FILE = 3 * 2**29


class Deployable(nn.Module):
    """Pixels to probabilities in one graph, normalisation included.

    Input: (B, in_chans, size, size) float32 from 0 to 1. Output: (B, num_classes) float32.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, exported: ExportedModel) -> None:
        super().__init__()
        self.network = exported.model
        self.kind = exported.kind
        self.register_buffer("mean", torch.tensor(exported.spec.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(exported.spec.std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return class_probabilities(self.network((images - self.mean) / self.std), kind=self.kind).float()


@dataclass(frozen=True)
class Written:
    """One format that was written and read back.

    Attributes:
        files: names inside the folder.
        difference: largest difference of a probability from the original's.
        same_class: share of the images whose most probable class is the same.
    """

    format: str
    files: tuple[str, ...]
    difference: float
    same_class: float


def write_formats(
    folder: Path, exported: ExportedModel, images: Tensor, *, formats: tuple[str, ...]
) -> tuple[list[Written], dict[str, str]]:
    """Writes a model in several formats, and keeps those whose round trip agrees.

    Args:
        folder: holds `model.safetensors` and `model.json` already; the others are written beside them.
        images: (B, in_chans, size, size) float32 from 0 to 1, two or more, on which the outputs are compared.
        formats: names among `FORMATS`.

    Returns:
        What was written; and for each format that could not be, why.
    """
    model = Deployable(exported).eval()
    with torch.no_grad():
        wanted = model(images).numpy()
    written, failed = [], {}
    for name in formats:
        own_files = FORMATS[name].files
        try:
            with _quietly():
                found = FORMATS[name].round_trip(folder, model, images)
        except Exception as error:  # what an exporter raises for an operation it does not know is its own affair
            _remove(folder, own_files)
            failed[name] = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"
            continue
        difference = float(np.abs(found - wanted).max())
        if not difference <= TOLERANCE:
            _remove(folder, own_files)
            failed[name] = f"read back, its probabilities differ by {difference:.2g} (more than {TOLERANCE:g})"
            continue
        same = float((found.argmax(axis=1) == wanted.argmax(axis=1)).mean())
        there = tuple(file for file in own_files if (folder / file).exists())
        written.append(Written(format=name, files=there, difference=difference, same_class=same))
    return written, failed


def _safetensors(folder: Path, model: Deployable, images: Tensor) -> np.ndarray:
    del model
    with torch.no_grad():
        found: np.ndarray = Deployable(load_model(folder, device=torch.device("cpu"))).eval()(images).numpy()
    return found


def _torch_export(folder: Path, model: Deployable, images: Tensor) -> np.ndarray:
    program = torch.export.export(model, (images[:2],), dynamic_shapes={"images": {0: torch.export.Dim.AUTO}})
    torch.export.save(program, folder / "model.pt2")
    with torch.no_grad():
        found: np.ndarray = torch.export.load(folder / "model.pt2").module()(images).numpy()
    return found


def _onnx(folder: Path, model: Deployable, images: Tensor) -> np.ndarray:
    import onnxruntime

    program = torch.onnx.export(
        model,
        (images[:2],),
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        input_names=["images"],
        output_names=["probabilities"],
        dynamo=True,
        verbose=False,
    )
    assert program is not None, "None is for the exporter that is not asked for"
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    program.save(folder / "model.onnx", external_data=size > _ONNX_IN_ONE_FILE)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images.numpy()})
    return np.asarray(found)


@dataclass(frozen=True)
class _Format:
    """How a format is written and read back, what it leaves, and what it needs beside the project's own packages."""

    round_trip: Callable[[Path, Deployable, Tensor], np.ndarray]
    files: tuple[str, ...]
    packages: tuple[str, ...] = ()


FORMATS: Mapping[str, _Format] = {
    "safetensors": _Format(_safetensors, (WEIGHTS, DESCRIPTION)),
    "torch": _Format(_torch_export, ("model.pt2",)),
    "onnx": _Format(_onnx, ("model.onnx", "model.onnx.data"), ("onnx", "onnxscript", "onnxruntime")),
}


def check_formats(names: tuple[str, ...]) -> None:
    """Whether formats are known, and what they need is installed.

    Raises:
        ConfigError: naming those that are, or what to install.
    """
    if not names:
        raise ConfigError(f"--formats: names none; write some of {', '.join(FORMATS)}")
    for name in names:
        if name not in FORMATS:
            matches = nearest(name, FORMATS, count=1)
            raise ConfigError(
                f"--formats: must be {', '.join(FORMATS)}, found {name!r}; write {matches[0] if matches else 'onnx'}"
            )
        missing = [package for package in FORMATS[name].packages if importlib.util.find_spec(package) is None]
        if missing:
            raise ConfigError(
                f"--formats: {name} needs {', '.join(missing)}, not installed here; pip install 'vistune[export]', or "
                "leave it out: --formats safetensors,torch"
            )


def _remove(folder: Path, files: tuple[str, ...]) -> None:
    for file in files:
        path = folder / file
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keeps the exporters' notes on their own workings from the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def check_images(exported: ExportedModel, pixels: np.ndarray | None) -> Tensor:
    """Images on which a round trip is checked: real ones where there are some, else noise.

    Args:
        pixels: (B, H, W, C) uint8.

    Raises:
        ModelError: if the images have other channels than the model takes.
    """
    size, channels = exported.spec.size, exported.in_chans
    if pixels is None:
        return torch.rand(8, channels, size, size, generator=torch.Generator().manual_seed(0))
    if pixels.shape[-1] != channels:
        raise ModelError(f"the model takes {channels} channel(s), the images of the run have {pixels.shape[-1]}")
    normalised = exported.preprocess(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    mean = torch.tensor(exported.spec.mean).view(1, -1, 1, 1)
    std = torch.tensor(exported.spec.std).view(1, -1, 1, 1)
    return (normalised * std + mean).contiguous()
