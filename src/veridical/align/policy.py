"""Load a model and make it ready for training: the base, the same with what trains, and what it computes in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from veridical.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from veridical.vlm.model.adapters import LoraSettings
    from veridical.vlm.model.load_options import Attention, Quantise
    from veridical.vlm.model.loading import Vlm


class PolicySettings(Protocol):
    """The settings that say which model trains, and how much of it."""

    @property
    def model(self) -> str:
        """Its name or folder."""

    @property
    def dtype(self) -> str:
        """Number format."""

    @property
    def device(self) -> str:
        """Where it runs."""

    @property
    def attention(self) -> Attention:
        """The attention kernel."""

    @property
    def quantise(self) -> Quantise:
        """Whether the language model's weights are rounded."""

    @property
    def compile(self) -> bool:
        """Whether the language model is compiled."""

    @property
    def allow_remote_code(self) -> bool:
        """Whether it may bring Python code."""

    @property
    def max_pixels(self) -> int | None:
        """Most pixels of an image."""

    @property
    def max_image_tokens(self) -> int | None:
        """Most tokens of an image."""

    @property
    def train(self) -> str:
        """adapter, language, or language-and-projector."""

    @property
    def lora(self) -> LoraSettings:
        """The adapter."""

    @property
    def seed(self) -> int:
        """Seeds the adapter's first weights."""

    @property
    def start(self) -> Path | None:
        """An adapter to continue."""


@dataclass(frozen=True)
class Policy:
    """A model that trains: its fingerprint before that, the model itself, and the type that it computes in."""

    base: str
    vlm: Vlm
    dtype: torch.dtype


def load_policy(settings: PolicySettings) -> Policy:
    """Load the model and make trainable what `settings` say. Raises UserError where that can't be."""
    from veridical.vlm.model.precision import compute_dtype, refuse_float16

    base = load_base(settings)
    dtype, fingerprint = compute_dtype(base.model), base.fingerprint
    refuse_float16(dtype)
    return Policy(fingerprint, make_trainable(settings, base), dtype)


def load_base(settings: PolicySettings) -> Vlm:
    """Load the model that training starts from."""
    from veridical.vlm.load import load
    from veridical.vlm.model.image_limits import ImageLimits
    from veridical.vlm.model.load_options import LoadOptions

    return load(
        settings.model,
        dtype=settings.dtype,
        device=settings.device,
        allow_remote_code=settings.allow_remote_code,
        limits=ImageLimits(settings.max_pixels, settings.max_image_tokens),
        options=LoadOptions(settings.attention, settings.quantise, settings.compile),
    )


def make_trainable(settings: PolicySettings, base: Vlm) -> Vlm:
    """The model with what trains, before its first step: a LoRA adapter, or the weights themselves."""
    from veridical.vlm.load import attach_lora
    from veridical.vlm.model.adapters import unfreeze

    if settings.train == "adapter":
        return attach_lora(base, settings.lora, settings.seed, settings.start)
    return unfreeze(base, projector=settings.train == "language-and-projector")


def trained_weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """The weights that training changes, by name, sharing memory with the model."""
    return {name: weight.data for name, weight in model.named_parameters() if weight.requires_grad}


def snapshot(model: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of the weights that training changes, by name."""
    return {name: weight.clone() for name, weight in trained_weights(model).items()}


def average_into(average: Mapping[str, Tensor], model: torch.nn.Module, decay: float) -> None:
    """Move a moving average of the trained weights: average = decay * average + (1 - decay) * weights."""
    for name, weight in trained_weights(model).items():
        average[name].mul_(decay).add_(weight, alpha=1 - decay)


@contextmanager
def with_weights(model: torch.nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """The model with other weights in the place of those that train, while this lasts; nothing is copied."""
    parameters = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    own = {name: weight.data for name, weight in parameters.items()}
    try:
        for name, weight in parameters.items():
            weight.data = weights[name]
        yield
    finally:
        for name, weight in parameters.items():
            weight.data = own[name]


@contextmanager
def as_reference(vlm: Vlm, weights: Mapping[str, Tensor] | None) -> Iterator[None]:
    """The model that the policy is held to, while this lasts: with `weights`, or without its adapter where None."""
    from veridical.vlm.model.adapters import adapters_off, has_adapter

    if weights is not None:
        with with_weights(vlm.model, weights):
            yield
        return
    if not has_adapter(vlm):
        raise UserError("the reference of a model that trains as a whole is a copy of its first weights.")
    with adapters_off(vlm):
        yield
