"""Models that leave vistune: what each format holds is what the run found."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from search.export import main, usage
from search.export_formats import Written, check_formats, check_images, write_formats
from tests.search.cli import run, write_space
from trainables.checkpoint import TrialFiles
from trainables.config import DataConfig, SplitConfig, TrialConfig
from trainables.data import load_data
from trainables.errors import ConfigError
from trainables.exported import ExportedModel, export_model, load_model
from trainables.runtime import LocalRuntime
from trainables.splits import make_splits
from trainables.train import train

ALL = ("safetensors", "torch", "onnx")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    scheduler = {"name": "none", "max_epochs": 1}
    status, _, err = run(
        write_space(folder, budget={"trials": 2}, scheduler=scheduler), "--name", "a", "--storage-path", folder
    )
    assert status == 0, err
    return folder / "a"


def exported_model(folder: Path, **fields: object) -> ExportedModel:
    """A model of one epoch, exported."""
    config = TrialConfig(
        **{"data": DataConfig(name="digits"), "arch": "small_cnn", "batch_size": 64, "max_epochs": 1, **fields}  # type: ignore[arg-type]
    )
    train(config, LocalRuntime(trial_dir=folder / "trial", num_threads=1))
    data = load_data(config.data)
    rows = make_splits(data, SplitConfig()).train
    export_model(folder, config, trial_dir=folder / "trial", data=data, train_rows=rows)
    return load_model(folder, device=torch.device("cpu"))


@pytest.mark.ray
@pytest.mark.slow
def test_the_winner_is_written_in_every_format_and_used_as_its_page_says(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(finished)]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("model.safetensors", "model.pt2", "model.onnx"))
    folder = finished / "export" / "best"
    card = json.loads((folder / "model_card.json").read_text())
    assert card["trial"] == json.loads((finished / "summary.json").read_text())["best"]["trial"]
    assert card["test"]["top1"] > 0
    programs = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    assert len(programs) == 3
    for program in programs:
        check = program + "\nassert abs(float(probabilities.sum()) - 1) < 1e-4"
        found = subprocess.run([sys.executable, "-c", check], cwd=folder, capture_output=True, text=True)
        assert found.returncode == 0, found.stderr


@pytest.mark.ray
@pytest.mark.slow
def test_any_trial_can_be_written(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(finished), "--trial", "1", "--formats", "torch"]) == 0
    from safetensors.torch import load_file

    kept = load_file(TrialFiles(finished / "trials" / "0001").best_weights)
    written = load_file(finished / "export" / "0001" / "model.safetensors")
    assert all(torch.equal(kept[name], written[name]) for name in kept)
    assert (finished / "export" / "0001" / "model.pt2").is_file()
    assert main([str(finished), "--trial", "1", "--formats", "safetensors"]) == 0
    assert not (finished / "export" / "0001" / "model.pt2").exists()  # what the page beside it does not mention
    (tmp_path / "taken").touch()
    for taken, told in (
        (tmp_path / "taken", "nothing can be written there"),
        (finished / "best_model", "is the run's own model"),
    ):
        assert main([str(finished), "--output", str(taken)]) == 2
        assert told in capsys.readouterr().err
    assert main([str(finished), "--trial", "9"]) == 2
    assert "a has no trial 9; its trials are 0 to 1" in capsys.readouterr().err
    TrialFiles(finished / "trials" / "0001").best_weights.unlink()
    assert main([str(finished), "--trial", "1"]) == 2
    assert "the weights of trial 1 (completed) are not there" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["onx", "pickle"])
def test_unknown_formats_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="--formats: must be safetensors, torch, onnx, found"):
        check_formats((name,))
    with pytest.raises(ConfigError, match="--formats: names none; write some of safetensors"):
        check_formats(())


@pytest.mark.parametrize(
    "fields",
    [
        {"arch": "resnet10t", "input_size": 32},
        pytest.param({"arch": "vit_tiny_patch16_224", "input_size": 32, "lr": 1e-4}, marks=pytest.mark.slow),
        pytest.param({"arch": "torchvision/mobilenet_v3_small", "input_size": 32}, marks=pytest.mark.slow),
    ],
)
def test_formats_agree_for_batches_of_any_size(tmp_path: Path, fields: dict[str, object]) -> None:
    exported = exported_model(tmp_path, **fields)
    data = load_data(DataConfig(name="digits"))
    images = check_images(exported, data.take(np.arange(7)))
    assert images.min() >= -1e-6
    assert images.max() <= 1 + 1e-6
    written, failed = write_formats(tmp_path, exported, images, formats=ALL)
    assert failed == {}
    assert [each.format for each in written] == list(ALL)
    assert max(each.difference for each in written) <= 1e-4
    assert {each.same_class for each in written} == {1.0}


def test_a_format_that_does_not_agree_is_not_left_behind(tmp_path: Path) -> None:
    exported = exported_model(tmp_path)
    images = check_images(exported, None)
    with torch.no_grad():  # what is in memory is now another model than what is in the file
        for parameter in exported.model.parameters():
            parameter.add_(0.5)
    written, failed = write_formats(tmp_path, exported, images, formats=("torch", "safetensors"))
    assert [each.format for each in written] == ["torch"]
    assert re.match(r"read back, its probabilities differ by", failed["safetensors"])
    assert not (tmp_path / "model.safetensors").exists()


def test_the_page_names_only_what_was_written(tmp_path: Path) -> None:
    exported = exported_model(tmp_path)
    page = usage(exported, [Written("torch", ("model.pt2",), 0.0, 1.0)])
    assert "model.pt2" in page
    assert "onnx" not in page


def test_the_page_says_how_images_of_another_size_become_the_networks(tmp_path: Path) -> None:
    same = usage(exported_model(tmp_path / "same", arch="small_cnn"), [])
    assert "as a whole" not in same
    other = exported_model(tmp_path / "other", arch="resnet10t", input_size=32)
    assert f"resized as a whole to 32 x 32 px ({other.spec.interpolation}" in usage(other, [])
