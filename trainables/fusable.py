"""Which trials can train together? Those whose networks give the same fused as alone, which is tried out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trainables.architectures import OWN
from trainables.config import TrialConfig
from trainables.errors import first_line
from trainables.fused_network import ENGINES, Engine, fused_network
from trainables.hyperparameters import Hyperparameters
from trainables.models import build_model
from trainables.stack import Stack
from trainables.trial_state import TrialState

# What decides about the network. Dropout and stochastic depth count by whether there are any.
_OF_NETWORK = (
    "arch",
    "cnn_stages",
    "cnn_depth",
    "cnn_width",
    "cnn_kernel",
    "cnn_norm",
    "cnn_activation",
)
# What else fused trials must have in common; in all the rest they may differ.
_IN_COMMON = ("data", "split", "pretrained", "weights", "input_size", "batch_size", "precision", "channels_last")
_NUM_MODELS, _NUM_IMAGES = 2, 3
_TOLERANCE = 1e-6  # of double precision sums in another order


@dataclass(frozen=True)
class Fusion:
    """Whether trials can be fused.

    Attributes:
        engine: how; None if they cannot.
        reason: why they cannot, naming the operation or the setting that stands in the way; empty if they can.
    """

    engine: Engine | None
    reason: str = ""


def fusion_of(trial: TrialState) -> Fusion:
    """Whether a trial can train together with others like it."""
    stepper = trial.stepper
    if trial.runtime.world_size > 1:
        return Fusion(None, f"the trial has {trial.runtime.world_size} workers")
    if stepper.auxiliary_weight > 0:
        return Fusion(None, f"{trial.config.arch} has auxiliary classifiers")
    if stepper.micro_batch_size < trial.train_batches.largest_share:
        return Fusion(None, f"its batch is cut into micro-batches of {stepper.micro_batch_size} images")
    return find_fusion(trial.config, **_sizes(trial))


def give_up_fusing(trial: TrialState, *, reason: str) -> None:
    """Has trials like this one train alone in this process, since they could not be fused where they train.

    What is tried out beforehand is tried on the CPU, in double precision.
    """
    _given_up[_question(trial.config, **_sizes(trial))] = reason


def _sizes(trial: TrialState) -> dict[str, int]:
    preprocess = trial.stepper.preprocess
    return {"num_classes": len(trial.class_names), "in_chans": preprocess.in_chans, "image_size": preprocess.size}


def find_fusion(config: TrialConfig, *, num_classes: int, in_chans: int, image_size: int) -> Fusion:
    """Whether trials of a configuration can be fused: two networks pass a few images, fused and alone.

    Scores, gradients, running statistics and dropout masks must agree. The answer is remembered in this process.

    Args:
        image_size: the side that the network sees.
    """
    if config.finetune != "full":
        return Fusion(None, f"finetune: {config.finetune} freezes parts of the network")
    if config.compile:
        return Fusion(None, "compile: true compiles the network of one trial")
    if config.precision == "fp16":
        return Fusion(None, "precision: fp16 scales the loss of each trial by a factor of its own")
    question = _question(config, num_classes=num_classes, in_chans=in_chans, image_size=image_size)
    if question in _given_up:
        return Fusion(None, _given_up[question])
    return _try_engines(question)


def fusion_key(trial: TrialState, fusion: Fusion) -> Hashable:
    """Trials with the same key can train their next epochs together.

    The number and size of the images are part of it: with a fidelity other than epochs they change between epochs.
    """
    config, epoch, batches = trial.config, len(trial.history), trial.train_batches
    size = config.fidelity.image_size(epoch, size=trial.stepper.preprocess.size)
    shared = config.model_dump_json(include={*_OF_NETWORK, *_IN_COMMON})
    # Libraries may leave out a dropout layer whose rate is 0; our own networks have it in any case.
    flags = (config.arch in OWN or config.dropout > 0, config.drop_path > 0, config.refit_epochs is None)
    return shared, flags, fusion.engine, trial.runtime.device, size, batches.largest_share, batches.num_steps(epoch)


@dataclass(frozen=True)
class _Question:
    """What decides whether trials can be fused.

    Attributes:
        fields: of their hyperparameters, by name.
    """

    fields: tuple[tuple[str, Any], ...]
    num_classes: int
    in_chans: int
    image_size: int


# Why some could not be fused after all.
_given_up: dict[_Question, str] = {}


def _question(config: TrialConfig, *, num_classes: int, in_chans: int, image_size: int) -> _Question:
    fields = {name: getattr(config, name) for name in _OF_NETWORK}
    # Any rate shows whether the layers that take it can be fused.
    fields |= {name: 0.25 for name in ("dropout", "drop_path") if getattr(config, name) > 0}
    return _Question(tuple(fields.items()), num_classes=num_classes, in_chans=in_chans, image_size=image_size)


@lru_cache(maxsize=256)
def _try_engines(question: _Question) -> Fusion:
    num_classes, in_chans, image_size = question.num_classes, question.in_chans, question.image_size
    config = Hyperparameters.model_validate(dict(question.fields))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models = [
            build_model(config, num_classes=num_classes, in_chans=in_chans, image_size=image_size).double().train()
            for _ in range(_NUM_MODELS)
        ]
        if not all(parameter.requires_grad for parameter in models[0].parameters()):
            return Fusion(None, f"{config.arch} has parameters that never train")
        images = torch.randn(_NUM_MODELS, _NUM_IMAGES, in_chans, image_size, image_size, dtype=torch.float64)
        alone = [
            _pass_alone(model, batch, seed=seed) for seed, (model, batch) in enumerate(zip(models, images, strict=True))
        ]
        reasons = []
        for engine in ENGINES:
            problem = _problem(partial(_pass_fused, engine, models, images), alone)
            if problem is None:
                return Fusion(engine)
            reasons.append(f"{engine}: {problem}")
    return Fusion(None, "; ".join(reasons))


_Found = Mapping[str, Tensor]


def _pass_alone(model: nn.Module, images: Tensor, *, seed: int) -> _Found:
    """Scores, gradients and buffers of one training step, then scores in evaluation mode. Restores the model."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    torch.manual_seed(seed)
    scores = model.train()(images)
    if not isinstance(scores, Tensor):
        return {}
    _loss(scores).backward()  # type: ignore[no-untyped-call]
    found = {"scores": scores.detach()}
    for name, parameter in model.named_parameters():
        found[f"gradient of {name}"] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        parameter.grad = None
    found |= {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.no_grad():
        found["scores in evaluation"] = model.eval()(images)
        for name, buffer in model.named_buffers():
            if buffer.shape == buffers[name].shape:  # else a constant that the network worked out from the images' size
                buffer.copy_(buffers[name])
    return found


def _pass_fused(engine: Engine, models: Sequence[nn.Module], images: Tensor) -> list[_Found]:
    """The same of all models, fused; the models' own tensors stay as they are."""
    network, stack = fused_network(engine, models[0]), Stack(models)
    rows = slice(0, len(models))
    before = stack.snapshot()
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(models))]
    network.take(network.rates(models), generators)
    parameters, buffers = stack.leaves(rows), stack.buffers(rows)
    scores = network(images, parameters=parameters, buffers=buffers, training=True)
    stack.differentiate(_loss(scores), parameters, rows=rows)
    with torch.no_grad():
        evaluated = network(images, parameters=stack.values(rows), buffers=buffers, training=False)
    found: list[_Found] = []
    for row in range(len(models)):
        own = {"scores": scores[row].detach(), "scores in evaluation": evaluated[row]}
        own |= {f"gradient of {name}": view.clone() for name, view in stack.views(stack.gradients, row=row)}
        found.append(own | {name: buffer[row].clone() for name, buffer in buffers.items()})
    stack.back_to(before)
    return found


def _loss(scores: Tensor) -> Tensor:
    return scores.square().sum() + scores.sum()


def _problem(fused: Callable[[], list[_Found]], alone: Sequence[_Found]) -> str | None:
    """What keeps a fused pass from giving what the models give alone; None if it does."""
    if not alone[0]:
        return "gives more than one tensor"
    last = _LastCall()
    try:
        with warnings.catch_warnings(record=True) as told, last:
            warnings.simplefilter("always")
            found = fused()
    except NotImplementedError as error:
        return f"knows no {first_line(error)}"
    except Exception as error:
        if "called random operation" in str(error):
            return f"{last.name} draws random numbers outside of a dropout layer"
        return f"{last.name} ({first_line(error)})"
    for warning in told:
        if "batching rule for" in str(warning.message):  # done slot by slot: slower than unfused
            return f"{str(warning.message).partition('batching rule for ')[2].split()[0].rstrip('.')} goes slot by slot"
    for expected, got in zip(alone, found, strict=True):
        for name, value in expected.items():
            scale = max(1.0, float(value.abs().max())) if value.is_floating_point() else 1.0
            if got[name].shape != value.shape or not bool(((got[name] - value).abs() <= _TOLERANCE * scale).all()):
                return f"gives other {name}"
    return None


class _LastCall(TorchFunctionMode):
    """Knows the operation that failed: the last that was called."""

    name = "the network"

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        self.name = getattr(func, "__name__", str(func))
        return func(*args, **(kwargs or {}))
