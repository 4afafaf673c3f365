"""timm's classifiers by name, with the head, the input channels and the dropout that a task needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainables.architectures import takes_drop_path
from trainables.errors import ModelError
from trainables.nearest import nearest
from trainables.weights import CONNECT_TIMEOUT_S, Adaptable, State, connect_timeout

# The side from which its auxiliary head, a 5x5 convolution on features pooled to 5x5, can be computed.
_AUXILIARY_FROM_SIZE = 299
_INCEPTION_HEADS = ("fc", "AuxLogits.fc")
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def check_arch(arch: str, *, pretrained: bool) -> None:
    """Whether a model, and the weights that it is tagged with, exist.

    Raises:
        ModelError: naming the nearest models, or the tags there are.
    """
    import timm

    if not timm.is_model(arch):
        near = nearest(arch, timm.list_models())
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists them"
        raise ModelError(f"arch: unknown architecture {arch!r}; {hint}")
    name, _, tag = arch.partition(".")
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{name}.*")]
    if tag and tag not in tags:
        have = f"use {name} alone or with one of: {', '.join(tags)}" if tags else f"use {name}"
        raise ModelError(f"{arch}: {name} has no pretrained weights named {tag!r}; {have}")
    if pretrained and not timm.is_model_pretrained(arch):
        others = timm.list_models(pretrained=True, include_tags=False)
        near = [other for other in others if name in other] or nearest(name, others)  # ported ones are tf_NAME
        raise ModelError(
            f"{arch}: timm has no pretrained weights for it; set pretrained: false, give weights: PATH, or choose "
            f"{' or '.join(near[:3]) or 'another'}"
        )


def build(
    arch: str,
    *,
    pretrained: bool,
    num_classes: int,
    in_chans: int,
    image_size: int,
    dropout: float,
    drop_path: float,
) -> nn.Module:
    """A classifier of timm, adapted to the task; its published weights are fitted by timm.

    Models of one input size are built for this one. Inception v3 has its auxiliary head, and returns its scores too in
    training mode, where the images are large enough for it.

    Args:
        arch: with or without the tag of weights.
        image_size: side in pixels.
        drop_path: highest probability of skipping a block; left alone where the model takes none.

    Raises:
        ModelError: if the images cannot be cut into the model's patches.
        OSError: if the published weights are neither cached nor reachable.
    """
    import timm

    options: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_chans, "drop_rate": dropout}
    if takes_drop_path(arch):
        options["drop_path_rate"] = drop_path
    published = timm.get_pretrained_cfg(arch)
    if published is not None and published.fixed_input_size:
        options["img_size"] = image_size
    has_auxiliary = is_inception(arch) and image_size >= _AUXILIARY_FROM_SIZE
    if has_auxiliary:
        # timm counts the head of the auxiliary part to what stays, whatever the classes are.
        options |= {"aux_logits": True, "pretrained_cfg_overlay": {"classifier": _INCEPTION_HEADS}}

    def create() -> nn.Module:
        model: nn.Module = timm.create_model(arch, pretrained=pretrained, **options)
        return model

    model = _fetched(create) if pretrained else create()
    _check_patches(arch, model, image_size=image_size)
    if has_auxiliary:
        model.register_forward_hook(_scores_alone_in_evaluation)
    return model


def build_adaptable(arch: str, **options: Any) -> tuple[nn.Module, Adaptable]:
    """A classifier with new weights, as `build` gives it, and how a state dictionary of its own is made to fit it.

    timm's builders choose for each model a filter that knows older names of tensors and resamples position embeddings,
    and hand it to their loader alone. So the loader is replaced while a model is built by one that only notes it.
    """
    from timm.models import _builder, get_model_traits

    filters: list[Callable[..., Any] | None] = []

    def note_filter(*_: Any, filter_fn: Callable[..., Any] | None = None, **__: Any) -> None:
        filters.append(filter_fn)

    before = _builder.load_pretrained
    _builder.load_pretrained = note_filter
    try:
        model = build(arch, pretrained=True, **options)
    finally:
        _builder.load_pretrained = before
    (filter_fn,) = filters  # were it not called, a model would start from new weights and nobody know
    traits = get_model_traits(model)
    return model, Adaptable(
        heads=_names(_published(model).get("classifier")),
        auxiliary=("AuxLogits",) if is_inception(arch) else (),
        first_convolutions=_names(traits.get("first_conv") or _published(model).get("first_conv")),
        convert=lambda state, model: _filtered(filter_fn, state, model),
    )


def is_inception(arch: str) -> bool:
    """Whether it is the one model of timm with an auxiliary head."""
    return arch.partition(".")[0] == "inception_v3"


def input_of(arch: str) -> tuple[int, list[float], list[float], str]:
    """Side in pixels, mean and deviation per channel in [0, 1], and interpolation of what the weights saw."""
    import timm

    published = timm.get_pretrained_cfg(arch)
    if published is None:
        return 224, list(_IMAGENET_MEAN), list(_IMAGENET_STD), "bicubic"
    return published.input_size[-1], list(published.mean), list(published.std), published.interpolation


def weights_address(arch: str) -> str:
    """Where the pretrained weights are published."""
    import timm

    published = timm.get_pretrained_cfg(arch)
    return str(published.hf_hub_id or published.url)


def _fetched(create: Callable[[], nn.Module]) -> nn.Module:
    """Takes cached weights without asking the network; only where there are none, the hub, if it can be reached.

    Left to itself huggingface_hub retries an unreachable hub for 47 s, and asks it even for what is cached.
    """
    state = torch.get_rng_state()
    try:
        with _hub_offline(), connect_timeout():
            return create()
    except OSError:
        if not _hub_reachable():
            raise
    torch.set_rng_state(state)  # the failed attempt drew from it
    return create()


@contextmanager
def _hub_offline() -> Iterator[None]:
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _hub_reachable() -> bool:
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:  # the user said so
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=CONNECT_TIMEOUT_S)
    except Exception:  # whatever its HTTP client raises: it cannot be reached
        return False
    return True


def _check_patches(arch: str, model: nn.Module, *, image_size: int) -> None:
    """Models of one input size would leave out the margin of an image that their patches do not fill."""
    embedding = getattr(model, "patch_embed", None)
    patch = getattr(embedding, "patch_size", None)
    if not isinstance(patch, tuple) or getattr(embedding, "dynamic_img_pad", False):
        return
    if image_size % patch[0] != 0:
        raise ModelError(
            f"{arch}: cannot be built for images of {image_size}x{image_size} px, which its patches of {patch[0]} px "
            f"do not fill; set input_size: {max(image_size // patch[0], 1) * patch[0]} or another multiple"
        )


def _filtered(filter_fn: Callable[..., Any] | None, state: State, model: nn.Module) -> State:
    if filter_fn is None:
        return state
    try:
        return dict(filter_fn(state, model))
    except TypeError:  # some of timm's filters take the state alone
        return dict(filter_fn(state))


def _published(model: nn.Module) -> dict[str, Any]:
    return dict(model.pretrained_cfg)  # type: ignore[arg-type]


def _names(found: str | tuple[str, ...] | list[str] | None) -> tuple[str, ...]:
    return (found,) if isinstance(found, str) else tuple(found or ())


def _scores_alone_in_evaluation(model: nn.Module, _: Any, outputs: tuple[Tensor, Tensor]) -> Any:
    """timm's Inception v3 gives its auxiliary scores in evaluation mode too."""
    return outputs if model.training else outputs[0]
