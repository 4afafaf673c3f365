"""Whatever lies where weights or a checkpoint should is read, or refused by an error of ours, and never run."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing import examples
from trainables.checkpoint import TrialFiles, load_checkpoint, load_weights, save_weights
from trainables.errors import CheckpointError, ModelError
from trainables.exported import load_model
from trainables.weights import find_weights, read_weights

# torch wonders about the protocols of attacks.
pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")

_CPU = torch.device("cpu")
_QUICK = examples(25)
_STATE: dict[str, Any] = {
    "format": 1,
    "config_digest": "0123456789abcdef",
    "seed": 0,
    "epoch": 2,
    "history": [{"epoch": 1, "val_top1": 0.5}, {"epoch": 2, "val_top1": 0.75}],
    "model": {"weight": torch.arange(12.0).reshape(3, 4), "bias": torch.zeros(3, dtype=torch.bfloat16)},
    "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    "ema": None,
}


def _checkpoint(path: Path) -> None:
    torch.save(_STATE, path)


def _safetensors(path: Path) -> None:
    save_weights(path, _STATE["model"], metadata={"epoch": "2"})


def _legacy(path: Path) -> None:
    torch.save({"state_dict": _STATE["model"]}, path, _use_new_zipfile_serialization=False)


# How each kind of file is written, read, and refused.
_KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any], type[Exception]]] = {
    "checkpoint.pt": (_checkpoint, lambda path: load_checkpoint(path, device=_CPU), CheckpointError),
    "best.safetensors": (_safetensors, load_weights, CheckpointError),
    "weights.safetensors": (_safetensors, read_weights, ModelError),
    "weights.pt": (_checkpoint, read_weights, ModelError),
    "legacy.pth": (_legacy, read_weights, ModelError),
}


def _reads_or_refuses(path: Path, name: str) -> Any:
    _, read, refusal = _KINDS[name]
    try:
        return read(path)
    except refusal as error:
        assert str(path) in str(error)
        return None


@pytest.mark.parametrize("name", _KINDS)
@_QUICK
@given(data=st.data())
def test_changed_and_shortened_files_are_read_or_refused(tmp_path: Path, data: st.DataObject, name: str) -> None:
    path = tmp_path / name
    _KINDS[name][0](path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    path.write_bytes(content)
    _reads_or_refuses(path, name)


@pytest.mark.parametrize("name", _KINDS)
@_QUICK
@given(content=st.binary(max_size=200))
def test_any_content_is_read_or_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    _reads_or_refuses(path, name)


@pytest.mark.parametrize("name", _KINDS)
def test_other_values_than_a_state_are_refused(tmp_path: Path, name: str) -> None:
    values = (None, 1, "text", [], {}, [torch.zeros(1)], {"model": 3}, {"state_dict": None}, torch.zeros(2))
    for value in () if name.endswith(".safetensors") else values:
        torch.save(value, tmp_path / name)
        assert _reads_or_refuses(tmp_path / name, name) is None


class _Executed:
    """Unpickled without care, it makes a folder; with a class of ours, it would be one of ours."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.proof),)


@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
@pytest.mark.parametrize("name", _KINDS)
def test_no_pickle_is_run(tmp_path: Path, name: str, protocol: int) -> None:
    proof = tmp_path / "executed"
    pickle.loads(pickle.dumps(_Executed(proof), protocol=protocol))
    assert proof.is_dir(), "the attack is one"
    proof.rmdir()

    attack = {**_STATE, "history": _Executed(proof), "state_dict": {"weight": _Executed(proof)}}
    (tmp_path / name).write_bytes(pickle.dumps(attack, protocol=protocol))
    assert _reads_or_refuses(tmp_path / name, name) is None
    for zipped in (True, False):
        torch.save(attack, tmp_path / name, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
        assert _reads_or_refuses(tmp_path / name, name) is None
    assert not proof.exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "3",
        '"x"',
        '{"trial": 1}',
        "[" * 100_000,
        '{"trial": {}, "class_names": 5}',
        "\ud800",
        "\x00",
    ],
)
def test_a_model_with_another_description_is_refused(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "best_model"
    folder.mkdir()
    (folder / "model.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    save_weights(folder / "model.safetensors", _STATE["model"])
    with pytest.raises(CheckpointError, match="not a model description"):
        load_model(folder, device=_CPU)
    with pytest.raises(ModelError, match="does not describe a model"):
        find_weights(str(tmp_path), arch="small_cnn")


def test_a_link_in_a_description_leads_to_no_other_weights(tmp_path: Path) -> None:
    """Weights are those beside the description, whatever paths it names."""
    folder = tmp_path / "best_model"
    folder.mkdir()
    about = {"trial": {"arch": "small_cnn", "weights": "/etc/passwd"}, "class_names": ["a"], "file": "../../secret"}
    about["input"] = dict.fromkeys(("size", "mean", "std", "interpolation"), 1)
    (folder / "model.json").write_text(json.dumps(about))
    assert find_weights(str(tmp_path), arch="small_cnn").file == folder / "model.safetensors"


def test_files_of_a_trial_lie_in_its_folder(tmp_path: Path) -> None:
    files = TrialFiles(tmp_path)
    for path in (files.checkpoint, files.best_weights, files.failure):
        assert path.parent == tmp_path
