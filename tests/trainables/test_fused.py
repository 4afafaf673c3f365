"""Trials that train together: the curve of each is the one it has alone, whoever comes and goes beside it.

Fused sums are taken in another order, so curves agree up to rounding: within 1e-4 where training does not amplify it.
At high learning rates it does, fused or not: cutting a lone trial's batch into micro-batches moved its losses by up to
8e-3 in three epochs at lr 1e-2, and fusing it by up to 6e-3.
"""

from __future__ import annotations

import pickle
import resource
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from trainables import fusable
from trainables.batches import Batch, TrainBatches
from trainables.checkpoint import TrialFiles, load_checkpoint, load_weights
from trainables.config import DataConfig, TrialConfig
from trainables.errors import ConfigError, CrowdedError, DisturbedError, DivergedError
from trainables.folded_layers import FoldedConv2d
from trainables.fusable import find_fusion
from trainables.fused import Candidate, Outcome, train_fused
from trainables.fused_optim import fused_optimizer
from trainables.fused_trials import FusedTrials
from trainables.optim import build_optimizer
from trainables.runtime import LocalRuntime, MetricValue, StopTrial
from trainables.small_cnn import SmallCNN
from trainables.stack import Stack
from trainables.train import train

TIMES = ("train_s", "read_s", "val_s", "images_per_s")
TINY = {"arch": "cnn", "cnn_width": 8, "cnn_depth": 1, "cnn_stages": 2, "cnn_norm": "group"}


def config(**changes: object) -> TrialConfig:
    base = {"data": DataConfig(name="digits"), "batch_size": 64, "max_epochs": 2, "lr": 1e-3, **TINY}
    return TrialConfig.model_validate({**base, **changes})


class Stopping(LocalRuntime):
    """Stops its trial after an epoch, as a scheduler does."""

    def __init__(self, *, after: int | None = None, trial_dir: Path | None = None) -> None:
        super().__init__(trial_dir=trial_dir, num_threads=1)
        self._after = after

    def report(self, metrics: Mapping[str, MetricValue], *, last: bool) -> None:
        super().report(metrics, last=last)
        if metrics["epoch"] == self._after:
            raise StopTrial


def fuse(configs: Sequence[TrialConfig], runtimes: Sequence[LocalRuntime], *, num_slots: int = 16) -> list[Outcome]:
    """Outcomes in the order of the configurations."""
    waiting = iter([Candidate(*pair) for pair in zip(configs, runtimes, strict=True)])
    ended: list[Outcome] = []
    train_fused(lambda: next(waiting, None), num_slots=num_slots, on_end=ended.append)
    order = [next(each for each in ended if each.candidate.runtime is runtime) for runtime in runtimes]
    assert len(ended) == len(order)
    return order


def curve(runtime: LocalRuntime) -> list[dict[str, MetricValue]]:
    return [{name: value for name, value in epoch.items() if name not in TIMES} for epoch in runtime.reported]


def assert_as_alone(configs: Sequence[TrialConfig], runtimes: Sequence[LocalRuntime], *, rel: float = 1e-4) -> None:
    """Losses agree within `rel`; what jumps with a single image agrees up to a few images."""
    for each, fused in zip(configs, runtimes, strict=True):
        alone = LocalRuntime(num_threads=1)
        train(each, alone)
        assert len(fused.reported) == len(alone.reported)
        for found, expected in zip(curve(fused), curve(alone), strict=True):
            assert found.keys() == expected.keys()
            for name in ("train_loss", "val_loss", "lr"):
                assert found[name] == pytest.approx(expected[name], rel=rel), (each, name)
            for name in ("train_top1", "val_top1"):
                assert found[name] == pytest.approx(expected[name], abs=0.02), (each, name)


def test_each_slot_trains_as_alone() -> None:
    """Every choice that slots may differ in, at once."""
    configs = [
        config(seed=1),
        config(seed=2, lr=3e-3, weight_decay=0.05, dropout=0.5, lr_schedule="one_cycle", label_smoothing=0.1),
        config(seed=3, optimizer="sgd", lr=0.01, momentum=0.8, warmup_epochs=1, grad_clip_norm=0.1, dropout=0.2),
        config(seed=4, loss="focal", focal_gamma=1.5, class_weights="inverse", augment="basic", dropout=0.3),
        config(seed=5, mixup_alpha=0.4, ema_decay=0.9, erasing=0.5, sampling="balanced", dropout=0.1),
        config(seed=6, optimizer="rmsprop", lr=1e-4, layer_decay=0.7, cutmix_alpha=1.0, dropout=0.1),
    ]
    runtimes = [LocalRuntime(num_threads=1) for _ in configs]
    assert [outcome.error for outcome in fuse(configs, runtimes)] == [None] * len(configs)
    assert_as_alone(configs, runtimes)


@pytest.mark.parametrize(
    ("changes", "rel"),
    [
        ({"cnn_norm": "batch"}, 1e-4),
        ({"cnn_norm": "none", "cnn_activation": "gelu", "channels_last": False}, 1e-4),
        ({"loss": "bce", "precision": "bf16"}, 1e-2),
        ({"arch": "small_cnn"}, 1e-3),
    ],
    ids=["batch norm", "no norm", "bce in bf16", "small_cnn"],
)
def test_networks_and_losses_train_as_alone(changes: dict[str, object], rel: float) -> None:
    configs = [config(seed=seed, lr=5e-4, **changes) for seed in (1, 2)]
    runtimes = [LocalRuntime(num_threads=1) for _ in configs]
    fuse(configs, runtimes)
    assert_as_alone(configs, runtimes, rel=rel)


def test_slots_are_stopped_and_refilled_individually() -> None:
    configs = [config(seed=seed, max_epochs=epochs) for seed, epochs in ((1, 4), (2, 4), (3, 2), (4, 3), (5, 2))]
    runtimes = [Stopping(), Stopping(after=1), Stopping(after=1), Stopping(), Stopping()]
    outcomes = fuse(configs, runtimes, num_slots=2)
    assert [len(runtime.reported) for runtime in runtimes] == [4, 1, 1, 3, 2]
    assert [outcome.metrics and outcome.metrics["epoch"] for outcome in outcomes] == [4, 1, 1, 3, 2]
    assert all(outcome.error is None for outcome in outcomes)
    for each, fused in zip(configs, runtimes, strict=True):
        alone = LocalRuntime(num_threads=1)
        train(each, alone)
        for found, expected in zip(fused.reported, alone.reported, strict=False):
            assert found["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-4)


def test_a_stop_that_was_not_heard_of_comes_before_the_next_epoch(tmp_path: Path) -> None:
    class Decided(Stopping):
        def settle(self) -> None:
            if self.reported:
                raise StopTrial

    fuse([config(max_epochs=3)], [Stopping(after=2, trial_dir=tmp_path)])  # killed once it had saved two epochs
    again = Decided(trial_dir=tmp_path)
    fuse([config(max_epochs=3)], [again])
    assert [each["epoch"] for each in again.reported] == [1, 2]


def test_each_trial_takes_its_share_of_the_time() -> None:
    runtimes = [LocalRuntime(num_threads=1) for _ in range(4)]
    fuse([config(seed=seed, max_epochs=1) for seed in range(4)], runtimes)
    (told,) = runtimes[0].reported
    seconds = float(told["train_s"]) * 4  # by the clock
    assert float(told["images_per_s"]) * seconds == pytest.approx(1_024)  # 16 batches of 64


def test_images_that_cannot_be_drawn_fail_one_trial_and_the_others_may_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = TrainBatches.epoch

    def breaks(batches: TrainBatches, epoch: int) -> Iterator[Batch]:
        for step, batch in enumerate(whole(batches, epoch)):
            if batches._config.seed == 2 and (epoch, step) == (1, 3):
                raise ConfigError("a pipeline of its own")
            yield batch

    monkeypatch.setattr(TrainBatches, "epoch", breaks)
    configs = [config(seed=seed) for seed in (1, 2)]
    runtimes = [LocalRuntime(num_threads=1, trial_dir=tmp_path / str(seed)) for seed in (1, 2)]
    neighbour, culprit = (outcome.error for outcome in fuse(configs, runtimes))
    assert isinstance(culprit, ConfigError)
    assert isinstance(neighbour, DisturbedError)
    again = LocalRuntime(num_threads=1, trial_dir=tmp_path / "1")
    assert [outcome.error for outcome in fuse(configs[:1], [again])] == [None]
    assert_as_alone(configs[:1], [again])


def test_failures_end_one_trial_only() -> None:
    configs = [config(seed=seed, cnn_norm="none") for seed in (1, 2)]
    configs.append(config(seed=3, cnn_norm="none", optimizer="sgd", lr=10.0, momentum=0.99, weight_decay=1.0))
    configs.append(config(seed=4, cnn_norm="none", metric="val_auroc"))
    runtimes = [LocalRuntime(num_threads=1) for _ in configs]
    *_, diverged, unusable = fuse(configs, runtimes)
    assert isinstance(diverged.error, DivergedError)
    assert "became nan in epoch 1" in str(diverged.error)
    assert isinstance(unusable.error, ConfigError)
    assert unusable.metrics is None
    assert_as_alone(configs[:2], runtimes[:2])


def test_a_fused_trial_leaves_what_a_lone_one_does(tmp_path: Path) -> None:
    """Stopped fused, it resumes alone; and the other way round."""
    configs = [config(seed=seed, optimizer=name) for seed, name in ((1, "adamw"), (2, "sgd"))]
    folders = [tmp_path / "1", tmp_path / "2"]
    fuse(configs, [Stopping(after=1, trial_dir=folder) for folder in folders])
    whole = load_checkpoint(TrialFiles(folders[0]).checkpoint, device=torch.device("cpu"))
    assert whole is not None
    saved = whole["model"]["head.weight"]
    assert saved.untyped_storage().nbytes() == saved.numel() * saved.element_size()  # not its neighbours' as well
    assert torch.equal(load_weights(TrialFiles(folders[0]).best_weights)["head.weight"], saved)

    resumed = [Stopping(after=2, trial_dir=folder) for folder in folders]
    for each, runtime in zip(configs, resumed, strict=True):
        with pytest.raises(StopTrial):
            train(each, runtime)
    last = [LocalRuntime(trial_dir=folder, num_threads=1) for folder in folders]
    fuse(configs, last)
    assert_as_alone(configs, last)


def test_trials_that_cannot_be_fused_take_turns() -> None:
    configs = [config(seed=1), config(seed=2, finetune="head"), config(seed=3, batch_size=32), config(seed=4)]
    runtimes = [LocalRuntime(num_threads=1) for _ in configs]
    fuse(configs, runtimes)
    assert_as_alone(configs, runtimes)
    for at in (1, 2):  # without a partner a trial is trained as ever
        alone = LocalRuntime(num_threads=1)
        train(configs[at], alone)
        assert curve(runtimes[at]) == curve(alone)


@pytest.fixture
def scarce_memory() -> Iterator[list[int]]:
    """Raises as CUDA does where more than two slots pass at once; gives the numbers of slots that were tried."""
    tried: list[int] = []

    def refuse(module: nn.Module, _: object) -> None:
        if isinstance(module, FoldedConv2d) and module.training and module.tensors["weight"].dtype == torch.float32:
            tried.append(module.tensors["weight"].shape[0])
            if tried[-1] > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")

    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (2**46, before[1]))  # a limit, though none that is ever reached
    hook = register_module_forward_pre_hook(refuse)
    yield tried
    hook.remove()
    resource.setrlimit(resource.RLIMIT_DATA, before)


def test_fewer_slots_at_once_where_memory_is_scarce(scarce_memory: list[int]) -> None:
    configs = [config(seed=seed, dropout=0.3, cnn_norm="batch", max_epochs=1) for seed in range(5)]
    runtimes = [LocalRuntime(num_threads=1) for _ in configs]
    assert [outcome.error for outcome in fuse(configs, runtimes)] == [None] * 5
    assert scarce_memory[:2] == [5, 3]
    assert set(scarce_memory[2:]) == {1, 2}
    assert_as_alone(configs, runtimes)


def test_trials_for_which_there_is_no_memory_beside_others_may_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What all of them hold together leaves too little for one, which would have enough alone."""
    in_memory: list[int] = []

    def refuse(*arguments: Any) -> Any:
        in_memory.append(len(arguments[0].trials))
        if in_memory[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return train_epoch(*arguments)

    train_epoch = FusedTrials.train_epoch
    monkeypatch.setattr(FusedTrials, "train_epoch", refuse)
    configs = [config(seed=seed, max_epochs=1) for seed in range(4)]
    for outcome in fuse(configs, [LocalRuntime(num_threads=1) for _ in configs]):
        assert isinstance(outcome.error, CrowdedError)
        assert pickle.loads(pickle.dumps(outcome.error)).slots == 2
        assert "memory ran out beside 3 other trial(s)" in str(outcome.error)
    again = [LocalRuntime(num_threads=1) for _ in configs]
    assert [outcome.error for outcome in fuse(configs, again, num_slots=2)] == [None] * 4
    assert in_memory == [4, 2, 2]
    assert_as_alone(configs, again)


def test_trials_that_cannot_be_fused_after_all_go_on_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried out beforehand is tried on the CPU; a kernel of a GPU may refuse what that took."""
    monkeypatch.setattr(fusable, "_given_up", {})

    def refuse(*arguments: Any) -> Any:
        del arguments
        raise RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED")

    monkeypatch.setattr(FusedTrials, "train_epoch", refuse)
    configs = [config(seed=seed, max_epochs=1) for seed in range(2)]
    ended = fuse(configs, [LocalRuntime(num_threads=1) for _ in configs])
    assert [type(outcome.error) for outcome in ended] == [DisturbedError, DisturbedError]
    again = [LocalRuntime(num_threads=1) for _ in configs]
    assert [outcome.error for outcome in fuse(configs, again)] == [None, None]
    assert_as_alone(configs, again)


def test_weights_lie_in_one_stack_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a slot changes hands, the old stack is gone before the new one is made."""
    stacks: weakref.WeakSet[FusedTrials] = weakref.WeakSet()
    make = FusedTrials.__init__

    def counted(self: FusedTrials, *arguments: Any, **settings: Any) -> None:
        assert not stacks
        stacks.add(self)
        make(self, *arguments, **settings)

    monkeypatch.setattr(FusedTrials, "__init__", counted)
    configs = [config(seed=seed, max_epochs=epochs) for seed, epochs in enumerate((1, 3, 3))]
    ended = fuse(configs, [LocalRuntime(num_threads=1) for _ in configs])
    assert [outcome.error for outcome in ended] == [None] * 3


@pytest.mark.parametrize("name", ["adamw", "sgd", "timm/momentum"])
def test_vectorised_optimizers_step_as_torchs(name: str) -> None:
    """Slots that have stepped before and one that has not; then torch's own goes on from their state."""
    settings = [
        config(arch="small_cnn", optimizer=name, lr=lr, weight_decay=decay, momentum=momentum, layer_decay=layer_decay)
        for lr, decay, momentum, layer_decay in ((1e-3, 0.1, 0.9, 1.0), (1e-2, 0.0, 0.5, 1.0), (3e-3, 0.01, 0.0, 0.5))
    ]

    def models_and_optimizers() -> tuple[list[nn.Module], list[torch.optim.Optimizer]]:
        torch.manual_seed(0)
        models: list[nn.Module] = [SmallCNN(num_classes=3, in_chans=1, image_size=8, dropout=0) for _ in settings]
        names = list(dict(models[0].named_parameters()))
        stages = [tuple(names[:4]), tuple(names[4:])]
        pairs = zip(models, settings, strict=True)
        return models, [build_optimizer(model, stages, each, device=torch.device("cpu")) for model, each in pairs]

    def give_gradients(models: list[nn.Module], step: int) -> None:
        generator = torch.Generator().manual_seed(step)
        for model in models:
            for parameter in model.parameters():
                value = torch.randn(parameter.shape, generator=generator)
                if parameter.grad is None:
                    parameter.grad = value
                else:
                    parameter.grad.copy_(value)

    models, optimizers = models_and_optimizers()
    fused_models, fused_optimizers = models_and_optimizers()
    for step in range(7):
        give_gradients(models, step)
        for optimizer in optimizers:
            optimizer.step()
        if step == 2:
            stack = Stack(fused_models)
            together = fused_optimizer(stack, fused_optimizers, vectorised=True)
        give_gradients(fused_models, step)
        if 2 <= step < 5:
            together.step()
            together.sync()
            continue
        for optimizer in fused_optimizers:
            optimizer.step()
    for one, other in zip(models, fused_models, strict=True):
        for (label, expected), found in zip(one.named_parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, msg=label)


def test_what_can_be_fused() -> None:
    torch.set_num_threads(1)

    def found(arch: str, **changes: object) -> tuple[str | None, str]:
        fusion = find_fusion(config(arch=arch, **changes), num_classes=3, in_chans=3, image_size=8)
        return fusion.engine, fusion.reason

    assert found("small_cnn", dropout=0.3) == ("folded", "")
    assert found("small_cnn", finetune="head") == (None, "finetune: head freezes parts of the network")
    assert found("small_cnn", compile=True) == (None, "compile: true compiles the network of one trial")


@pytest.mark.slow
def test_what_can_be_fused_of_libraries() -> None:
    torch.set_num_threads(1)

    def found(arch: str, **changes: object) -> tuple[str | None, str]:
        fusion = find_fusion(config(arch=arch, **changes), num_classes=3, in_chans=3, image_size=32)
        return fusion.engine, fusion.reason

    assert found("resnet10t") == ("folded", "")
    assert found("mobilenetv3_small_050") == ("vmap", "")
    engine, reason = found("resnet10t", drop_path=0.2)
    assert engine is None
    assert "vmap: bernoulli_ draws random numbers outside of a dropout layer" in reason
    engine, reason = found("torchvision/googlenet")
    assert (engine, "gives more than one tensor" in reason) == (None, True)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["test_vit", "mobilenetv3_small_050"])
def test_networks_under_vmap_train_as_alone(arch: str) -> None:
    # timm's MobileNet calls its dropout as a function, which cannot be fused.
    dropout = 0.1 if arch == "test_vit" else 0.0
    changes = {"arch": arch, "input_size": 32, "batch_size": 128, "max_epochs": 1, "lr": 1e-4, "dropout": dropout}
    configs = [config(seed=seed, **changes) for seed in (1, 2)]
    assert find_fusion(configs[0], num_classes=10, in_chans=1, image_size=32).engine == "vmap"
    runtimes = [LocalRuntime(num_threads=1) for _ in configs]
    fuse(configs, runtimes)
    assert_as_alone(configs, runtimes, rel=1e-3)


def test_trials_with_growing_images_and_refits_train_as_alone() -> None:
    """Slots at different epochs have images of different number and size then: only some epochs are shared."""
    growing = {"fidelity": {"name": "data_fraction", "lowest": 0.5, "rungs": [1]}, "max_epochs": 2}
    configs = [config(seed=seed, **growing) for seed in (1, 2, 3)]
    configs += [config(seed=seed, refit_epochs=1) for seed in (4, 5)]
    runtimes = [Stopping(after=1), *(Stopping() for _ in configs[1:])]
    fuse(configs, runtimes, num_slots=2)
    assert [len(runtime.reported) for runtime in runtimes] == [1, 2, 2, 1, 1]
    for each, fused in zip(configs[1:], runtimes[1:], strict=True):
        alone = LocalRuntime(num_threads=1)
        train(each, alone)
        losses = [[epoch["train_loss"] for epoch in runtime.reported] for runtime in (fused, alone)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
