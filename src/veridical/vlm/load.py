"""Load a model, or wrap one that is in memory; put an adapter on it; probe what its family allows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from veridical.errors import UserError
from veridical.hub import fetched_adapter
from veridical.vlm.model import adapters, image_limits, loading
from veridical.vlm.model.adapters import LoraSettings
from veridical.vlm.model.image_limits import ImageLimits
from veridical.vlm.model.load_options import LoadOptions
from veridical.vlm.model.loading import Vlm


def load(
    model: str | Path = "bundled",
    *,
    adapter: Path | None = None,
    dtype: str = "auto",
    device: str = "auto",
    allow_remote_code: bool = False,
    limits: ImageLimits | None = None,
    options: LoadOptions | None = None,
) -> Vlm:
    """Load a model in evaluation mode, with all weights frozen.

    `model` is `bundled`, a folder, or a name on the Hugging Face hub; `adapter` a folder in PEFT's layout, or
    `hf://OWNER/NAME`. By
    default a GPU is used, in bfloat16, or else the CPU in float32. Only safetensors are read. Without `limits` on the
    size of images, those that the adapter was trained with hold, and are printed. Raises
    `UserError` for a model that isn't there or isn't an image-text-to-text model, and for an adapter that
    doesn't fit, or for `limits` on the size of images that its family doesn't have, and for `options` (the attention
    kernel, quantised weights, compiling) that are not available here.
    """
    adapter = None if adapter is None else fetched_adapter(adapter)
    loaded = loading.read_model(model, dtype, device, allow_remote_code, options)
    if adapter is not None and not limits and (limits := image_limits.stored(adapter)):
        print(f"{adapter}: was trained with {limits}, which holds here too", file=sys.stderr)
    image_limits.apply(limits, str(model), loaded.model, loaded.processor)
    if adapter is None:
        return _probed(loading.assemble(str(model), loaded.model, loaded.processor, loaded.weights, limits=limits))
    adapted, invocation_tokens = adapters.load_adapter(loaded.model, adapter)
    return _probed(loading.assemble(str(model), adapted, loaded.processor, loaded.weights, invocation_tokens, limits))


def with_adapter(vlm: Vlm, adapter: Path) -> Vlm:
    """The loaded base `vlm` with an adapter on it; the weights are shared, so `vlm` must not be used again.

    Raises `UserError` where the adapter doesn't fit.
    """
    model, invocation_tokens = adapters.load_adapter(vlm.model, adapter)
    return _probed(loading.assemble(vlm.name, model, vlm.processor, vlm.weights, invocation_tokens, vlm.limits))


def assemble(
    name: str, model: Any, processor: Any, invocation_tokens: tuple[int, ...] = (), limits: ImageLimits | None = None
) -> Vlm:
    """A `Vlm` from a model and a processor that are in memory already; probes the model if its family is
    unknown. `invocation_tokens` as in `Vlm`; `limits` are set on the processor given.
    """
    image_limits.apply(limits, name, model, processor)
    return _probed(loading.assemble(name, model, processor, invocation_tokens=invocation_tokens, limits=limits))


def _probed(vlm: Vlm) -> Vlm:
    from veridical.vlm import probe

    return vlm if vlm.sharing.tested else probe.probed(vlm)


def attach_lora(vlm: Vlm, settings: LoraSettings, seed: int, start: Path | None = None) -> Vlm:
    """The model with a trainable adapter; the base stays frozen.

    The adapter is a new one, whose first weights depend on `seed` only, or has the weights of the one in `start`, a
    folder in PEFT's layout. The model given shares its weights with the one returned and must not be used afterwards.
    Raises `UserError` where no layer fits the settings, the adapter in `start` has other ones, or the model can't have
    an adapter that acts on answers only.
    """
    start = None if start is None else fetched_adapter(start)
    return adapters.attach(vlm, settings, seed, _invocation_tokens(vlm, settings), start)


def _invocation_tokens(vlm: Vlm, settings: LoraSettings) -> tuple[int, ...]:
    """Where an answer-only adapter begins to act; empty for one that acts on everything."""
    from veridical.vlm.model.alora import invocation_tokens
    from veridical.vlm.probe import answer_only_obstacle

    if settings.acts_on == "everything":
        return ()
    if settings.train_projector:
        raise UserError(
            "lora.acts_on: answers leaves the image to the frozen base model, so the projector can't train; set "
            "lora.train_projector to false, or lora.acts_on to everything."
        )
    if reason := answer_only_obstacle(vlm):
        raise UserError(f"{vlm.name} can't have an answer-only adapter: {reason}; set lora.acts_on to everything.")
    return invocation_tokens(vlm)
