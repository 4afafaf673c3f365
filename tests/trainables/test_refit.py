"""Training on training and validation images together, for a known number of epochs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from tests.trainables.group import train_on
from trainables.checkpoint import TrialFiles
from trainables.config import DataConfig, TrialConfig
from trainables.runtime import LocalRuntime
from trainables.train import train
from trainables.trial_state import start_trial


def config(**fields: object) -> TrialConfig:
    values = {"data": DataConfig(name="digits"), "arch": "small_cnn", "batch_size": 64, "max_epochs": 4, **fields}
    return TrialConfig(**values)  # type: ignore[arg-type]


def test_all_images_but_the_test_are_trained_on() -> None:
    trial = start_trial(config(refit_epochs=2, batch_size=2), LocalRuntime(num_threads=1))
    assert trial.train_batches.num_steps(0) == (1079 + 359) // 2


def test_it_ends_where_it_is_told_and_keeps_the_last_epoch(tmp_path: Path) -> None:
    short = LocalRuntime(trial_dir=tmp_path / "short", num_threads=1)
    last = train(config(refit_epochs=2), short)
    assert [each["epoch"] for each in short.reported] == [1, 2]
    assert last["best_epoch"] == 2
    assert not any(name.startswith("val_") or name == "score" for name in last)
    kept = load_file(TrialFiles(tmp_path / "short").best_weights)
    again = LocalRuntime(trial_dir=tmp_path / "again", num_threads=1)
    train(config(refit_epochs=2), again)
    assert all(torch.equal(kept[name], value) for name, value in load_file(tmp_path / "again/best.safetensors").items())


def test_the_schedule_still_spans_all_epochs() -> None:
    runtimes = [LocalRuntime(num_threads=1) for _ in range(2)]
    train(config(refit_epochs=2), runtimes[0])
    train(config(), runtimes[1])
    rates = [[each["lr"] for each in runtime.reported] for runtime in runtimes]
    assert rates[0][0] != rates[0][1]
    # The last step of an epoch is a little later in it where there are more of them.
    assert rates[0] == pytest.approx(rates[1][:2], rel=0.02)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"refit_epochs": 5}, "refit_epochs must be at most max_epochs, got 5 of 4"),
        ({"refit_epochs": 2, "lr_schedule": "plateau"}, "plateau follows the validation loss"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, object], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        config(**fields)


def test_workers_keep_the_mean_of_their_running_statistics(tmp_path: Path) -> None:
    """As where they validate. Of the first layer it is what one worker with the whole batch has."""
    trial = config(arch="cnn", cnn_width=8, batch_size=256, refit_epochs=1, lr_schedule="constant", lr=1e-9)
    train(trial, LocalRuntime(trial_dir=tmp_path / "alone", num_threads=1))
    train_on(2, trial, tmp_path / "group", trial_dir=tmp_path / "both")
    alone, both = (load_file(TrialFiles(tmp_path / name).best_weights) for name in ("alone", "both"))
    first = next(name for name in alone if name.endswith("running_mean"))
    torch.testing.assert_close(both[first], alone[first], rtol=1e-4, atol=1e-6)
