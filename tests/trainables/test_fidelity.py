"""Early epochs on a part of the images, or on smaller ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from trainables.config import DataConfig, TrialConfig
from trainables.errors import ModelError
from trainables.fidelity import Fidelity
from trainables.hyperparameters import Hyperparameters
from trainables.models import check_model
from trainables.runtime import LocalRuntime
from trainables.stratify import nested_order
from trainables.train import train
from trainables.trial_state import start_trial


def digits(fidelity: Fidelity, *, max_epochs: int = 4) -> TrialConfig:
    return TrialConfig(
        data=DataConfig(name="digits"), arch="small_cnn", batch_size=32, max_epochs=max_epochs, fidelity=fidelity
    )


def test_the_share_rises_in_equal_steps_after_each_rung() -> None:
    plan = Fidelity(name="data_fraction", lowest=0.25, rungs=(1, 3))
    assert [plan.share(epoch) for epoch in range(5)] == [0.25, 0.625, 0.625, 1.0, 1.0]
    assert Fidelity(rungs=(1, 3)).share(0) == 1.0


@pytest.mark.parametrize(
    ("size", "sizes"), [(8, [4, 8, 8]), (32, [16, 24, 32]), (224, [128, 160, 224]), (299, [160, 224, 299])]
)
def test_sizes_are_multiples_that_networks_take(size: int, sizes: list[int]) -> None:
    plan = Fidelity(name="image_size", lowest=0.5, rungs=(1, 2))
    assert [plan.image_size(epoch, size=size) for epoch in range(3)] == sizes


def test_every_beginning_of_the_nested_order_has_each_class_in_its_share() -> None:
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    order = nested_order(labels, rng=np.random.default_rng(0))
    assert sorted(order) == list(range(1000))
    for part in (50, 200, 500):
        counts = np.bincount(labels[order[:part]], minlength=3)
        assert np.abs(counts - part * np.array([0.6, 0.3, 0.1])).max() <= 1.5


def test_epochs_train_on_a_growing_part_of_the_images_and_validate_on_all() -> None:
    runtime = LocalRuntime(num_threads=1)
    plan = Fidelity(name="data_fraction", lowest=0.5, rungs=(1, 2))
    trial = start_trial(digits(plan), runtime)
    seen = [sum(len(batch.images) for batch in trial.train_batches.epoch(epoch)) for epoch in range(3)]
    assert seen == [512, 800, 1056]  # of 1,079 the half, three quarters and all, in whole batches of 32
    assert [trial.train_batches.num_steps(epoch) for epoch in range(3)] == [16, 25, 33]
    assert trial.val_batches.num_images == 359


def test_epochs_train_on_growing_images_and_validate_at_full_size() -> None:
    runtime = LocalRuntime(num_threads=1)
    trial = start_trial(digits(Fidelity(name="image_size", lowest=0.5, rungs=(1, 2))), runtime)
    sizes: list[int] = []
    network = trial.stepper.network

    def noted(images: torch.Tensor) -> object:
        sizes.append(images.shape[-1])
        return network(images)

    trial.stepper.network = noted  # type: ignore[assignment]
    for epoch in range(2):
        trial.start_epoch(epoch)
        trial.stepper.step(next(iter(trial.train_batches.epoch(epoch))))
    assert sizes == [4, 8]
    assert trial.stepper.preprocess.size == 8


class KilledError(Exception):
    """Ends a trial after an epoch, as a kill would."""


class KilledRuntime(LocalRuntime):
    def report(self, metrics: object, *, last: bool) -> None:
        super().report(metrics, last=last)  # type: ignore[arg-type]
        if len(self.reported) == 2:
            raise KilledError


@pytest.mark.parametrize("name", ["data_fraction", "image_size"])
def test_a_resumed_trial_has_the_curve_of_an_uninterrupted_one(name: str, tmp_path: Path) -> None:
    config = digits(Fidelity(name=name, lowest=0.5, rungs=(1, 3)))  # type: ignore[arg-type]
    whole = LocalRuntime(num_threads=1)
    train(config, whole)
    with pytest.raises(KilledError):
        train(config, KilledRuntime(trial_dir=tmp_path, num_threads=1))
    resumed = LocalRuntime(trial_dir=tmp_path, num_threads=1)
    train(config, resumed)
    assert [each["train_loss"] for each in resumed.reported] == [each["train_loss"] for each in whole.reported]
    assert [each["val_loss"] for each in resumed.reported] == [each["val_loss"] for each in whole.reported]


def test_a_network_for_images_of_one_size_is_refused() -> None:
    vit = Hyperparameters(arch="vit_tiny_patch16_224")
    with pytest.raises(ModelError, match=r"takes none of 16x16 px.*scheduler.fidelity"):
        check_model(vit, num_classes=3, in_chans=3, image_size=32, other_sizes=[16])
    assert check_model(Hyperparameters(arch="resnet10t"), num_classes=3, in_chans=3, image_size=64, other_sizes=[32])
