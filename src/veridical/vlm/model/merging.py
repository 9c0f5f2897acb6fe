"""Merge a LoRA adapter into its model and write the whole model, which loads anywhere: transformers, vLLM, others.

The sum is made in float32 on the CPU, from weights that were never rounded to 4 or 8 bits, and only its result is
rounded to the number type asked for. Most of a small update is below the spacing of bfloat16's numbers, so how much of
it a type keeps is measured and told.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from veridical.errors import UserError
from veridical.files import read_json, whole_folder
from veridical.vlm.model.adapters import give_usual_rights, save_whole

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm

MergedType: TypeAlias = Literal["float32", "bfloat16", "float16"]
ANSWERS_ONLY = (
    "acts on answers only, so it can't be merged (the model without it reads image and prompt), and vLLM can't serve "
    "it. Train a plain LoRA on the same pairs: `veridical align` with --lora.acts-on everything, and --reference-cache "
    "with that run's folder `reference`, whose scores are the same."
)
"""Ends a sentence that begins with such an adapter's name."""


@dataclass(frozen=True)
class Merged:
    """A whole model on disk; `kept` is the share of the adapter's update that its number type keeps, 1 for all."""

    folder: Path
    dtype: MergedType
    kept: float


def refuse_unmergeable(adapter: Path) -> None:
    """Raise UserError for an adapter that can't be merged, before its model is loaded."""
    if not (adapter / "adapter_config.json").is_file():
        raise UserError(f"{adapter} holds no adapter: there is no adapter_config.json in it. Give a PEFT folder.")
    if read_json(adapter / "adapter_config.json").get("alora_invocation_tokens"):
        raise UserError(f"{adapter} {ANSWERS_ONLY}")


def write_merged(vlm: Vlm, folder: Path, dtype: MergedType) -> Merged:
    """Merge the adapter of a model in float32 and write the whole model; the model given must not be used afterwards.

    Raises UserError for an answers-only adapter, and for weights that float16 can't hold.
    """
    import torch

    if vlm.invocation_tokens:
        raise UserError(f"The adapter of {vlm.name} {ANSWERS_ONLY}")
    if any(p.dtype != torch.float32 for p in vlm.model.parameters()):
        raise ValueError("a model is merged in float32")
    kind: torch.dtype = getattr(torch, dtype)
    kept = _kept(vlm.model, kind)
    model = vlm.model.merge_and_unload(safe_merge=True).eval().to(kind)
    if not all(bool(p.isfinite().all()) for p in model.parameters()):
        raise UserError(f"{vlm.name}: some weights are beyond what {dtype} can hold; merge into bfloat16 or float32.")
    with whole_folder(folder) as fresh:
        save_whole(model, vlm.processor, fresh, keep_float32=dtype == "float32")
        give_usual_rights(fresh)
    return Merged(folder, dtype, kept)


def _kept(model: Any, kind: Any) -> float:
    """The share of the update of all linear layers that is left after rounding: its projection on the whole update."""
    import torch

    kept = whole = 0.0
    for layer in model.modules():
        weight = getattr(getattr(layer, "base_layer", None), "weight", None)
        if weight is None or not hasattr(layer, "get_delta_weight"):
            continue
        for name in layer.active_adapters:
            update = layer.get_delta_weight(name).detach()
            if kind == torch.float32:
                continue
            rounded = (weight + update).to(kind).float() - weight
            kept += float((rounded * update).sum(dtype=torch.float64))
            whole += float(update.square().sum(dtype=torch.float64))
    return kept / whole if whole else 1.0
