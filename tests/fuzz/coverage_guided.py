"""Coverage-guided fuzzing of what reads files, by atheris, until it is stopped or finds something. Not a test.

    pip install atheris
    python -m tests.fuzz.coverage_guided space -max_total_time=600 -max_len=4096 [CORPUS]
    python -m tests.fuzz.coverage_guided checkpoint|weights -max_total_time=600 [CORPUS]

Seeds are made from the shipped spaces and a small checkpoint; CORPUS is a folder that keeps what reached new code.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["search", "trainables", "yaml"]):
    import torch

    from search.config import load_search
    from tests.search.space_files import GOOD, SHIPPED
    from trainables.checkpoint import load_checkpoint, save_checkpoint
    from trainables.errors import CheckpointError, ConfigError, ModelError
    from trainables.weights import read_weights

_FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))


def _space(content: bytes) -> None:
    path = _FOLDER / "space.yaml"
    path.write_bytes(content)
    with contextlib.suppress(ConfigError):
        load_search(path)


def _checkpoint(content: bytes) -> None:
    path = _FOLDER / "checkpoint.pt"
    path.write_bytes(content)
    with contextlib.suppress(CheckpointError):
        load_checkpoint(path, device=torch.device("cpu"))


def _weights(content: bytes) -> None:
    for name in ("weights.pt", "weights.safetensors"):
        (_FOLDER / name).write_bytes(content)
        with contextlib.suppress(ModelError):
            read_weights(_FOLDER / name)


_TARGETS: dict[str, Callable[[bytes], None]] = {"space": _space, "checkpoint": _checkpoint, "weights": _weights}


def _seeds(target: str, folder: Path) -> None:
    folder.mkdir()
    if target == "space":
        for index, text in enumerate([GOOD, *(path.read_text(encoding="utf-8") for path in SHIPPED)]):
            (folder / f"{index}.yaml").write_text(text, encoding="utf-8")
        return
    state = {"model": {"weight": torch.zeros(2, 2)}, "epoch": 1, "history": [{"val_top1": 0.5}]}
    save_checkpoint(folder / "new.pt", state)
    torch.save(state["model"], folder / "legacy.pt", _use_new_zipfile_serialization=False)


def main() -> None:
    """Never returns: libFuzzer ends the process."""
    if len(sys.argv) < 2 or sys.argv[1] not in _TARGETS:
        sys.exit(f"usage: python -m tests.fuzz.coverage_guided {'|'.join(_TARGETS)} [OPTION of libFuzzer...] [CORPUS]")
    target = sys.argv[1]
    warnings.simplefilter("ignore")
    _seeds(target, _FOLDER / "seeds")
    arguments = sys.argv[2:]
    own = [] if any(not each.startswith("-") for each in arguments) else [str(_FOLDER / "corpus")]
    for folder in own:
        Path(folder).mkdir()
    atheris.Setup([sys.argv[0], *arguments, *own, str(_FOLDER / "seeds")], _TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
