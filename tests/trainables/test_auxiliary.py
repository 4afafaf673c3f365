"""Networks with auxiliary heads train through the same loop, their losses counted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.images import write_classes
from trainables.batches import Batch
from trainables.config import DataConfig, TrialConfig
from trainables.models import auxiliary_weight, split_outputs
from trainables.runtime import LocalRuntime
from trainables.trial_state import start_trial


@pytest.mark.parametrize(
    ("arch", "size"),
    [("torchvision/googlenet", 64), pytest.param("torchvision/inception_v3", 299, marks=pytest.mark.slow)],
)
def test_auxiliary_losses_reach_the_lower_half(tmp_path: Path, arch: str, size: int) -> None:
    root = write_classes(tmp_path / "images", {"dark": 6, "light": 6})
    config = TrialConfig(data=DataConfig(name="folder", root=str(root)), arch=arch, input_size=size, batch_size=4)
    trial = start_trial(config, LocalRuntime(num_threads=2))
    trial.model.train()
    batch: Batch = next(trial.train_batches.epoch(0))
    logits, auxiliary = split_outputs(trial.model(trial.stepper.preprocess(batch.images)))
    assert len(auxiliary) == {"torchvision/googlenet": 2, "torchvision/inception_v3": 1}[arch]
    loss = trial.stepper.loss(logits, batch.targets)
    weighted = sum(auxiliary_weight(arch) * trial.stepper.loss(each, batch.targets) for each in auxiliary)
    assert torch.is_tensor(weighted)
    assert weighted > 0.1 * loss

    before = {name: value.clone() for name, value in trial.model.named_parameters()}
    trial.stepper.step(batch)
    moved = {name for name, value in trial.model.named_parameters() if not torch.equal(value, before[name])}
    assert any("aux" in name.lower() for name in moved)
