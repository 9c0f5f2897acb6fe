"""How a model is loaded besides its number format: the attention kernel, quantised weights, several GPUs, compiling."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib import util
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from veridical.errors import UserError

if TYPE_CHECKING:
    import torch

Attention: TypeAlias = Literal["auto", "sdpa", "flash_attention_2", "flash_attention_3", "eager"]
Quantise: TypeAlias = Literal["none", "nf4", "int8"]
SPREAD = "spread"
"""The device that is all visible GPUs together, each with some of the layers."""
_PACKAGES = {
    "flash_attention_2": ("flash_attn", "flash-attn"),
    "flash_attention_3": ("flash_attn_interface", "flash-attn-3"),
}
_UNTOUCHED = (
    "lm_head",
    *(rf".*\b{part}" for part in ("vision_tower", "vision_model", "visual", "multi_modal_projector", "mm_projector")),
    r".*\bconnector",
)
"""What is never quantised: the output layer, tower and projector, whose rounding shows in every answer."""


@dataclass(frozen=True)
class LoadOptions:
    """Everything at its default loads a model as before."""

    attention: Attention = "auto"
    quantise: Quantise = "none"
    compile: bool = False

    @property
    def changes_numbers(self) -> str:
        """What tells the weights from those in the files: quantised ones are others."""
        return "" if self.quantise == "none" else f" {self.quantise}"


def check(options: LoadOptions, device: str) -> None:
    """Raise UserError, before anything is loaded, for a package that is missing or a device that can't."""
    import torch

    if options.attention in _PACKAGES:
        module, package = _PACKAGES[options.attention]
        if util.find_spec(module) is None:
            raise UserError(
                f"attention {options.attention} needs the package {package}, which is not installed: `pip install "
                f"{package} --no-build-isolation` on a machine with a GPU, or take --attention sdpa."
            )
        if not torch.cuda.is_available() or device == "cpu":
            raise UserError(f"attention {options.attention} runs on GPUs only; take --attention sdpa.")
    if options.quantise != "none" and util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"quantise {options.quantise} needs bitsandbytes, which is not installed: `pip install "
            "'veridical[quantise]'`, or leave it out."
        )
    if device == SPREAD and torch.cuda.device_count() < 2:
        raise UserError(
            f"device {SPREAD} puts a model's layers on several GPUs, and {torch.cuda.device_count()} can be seen here; "
            "leave --device out."
        )


def arguments(options: LoadOptions, device: str, place: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """What `from_pretrained` is given for them. On a GPU weights go straight there, without a copy in host memory."""
    found: dict[str, Any] = {}
    if options.attention != "auto":
        if options.attention in _PACKAGES and dtype.itemsize > 2:
            raise UserError(f"attention {options.attention} takes half precision only; give --dtype bfloat16.")
        found["attn_implementation"] = options.attention
    if device == SPREAD:
        found["device_map"] = "balanced"
    elif place.type == "cuda" or options.quantise != "none":
        found["device_map"] = {"": str(place)}
    if options.quantise != "none":
        from transformers import BitsAndBytesConfig

        kind = {"load_in_8bit": True} if options.quantise == "int8" else {"load_in_4bit": True}
        found["quantization_config"] = BitsAndBytesConfig(
            **kind,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=list(_UNTOUCHED),
        )
    return found


def silence_kernel_advice(silent: bool = True) -> None:
    """Keep bitsandbytes' advice to install a kernel for 4-bit weights from users who have none of these.

    It comes with the package's import, which PEFT's import brings, on some processors.
    """
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    (logger.addFilter if silent else logger.removeFilter)(_is_no_advice)


def _is_no_advice(record: logging.LogRecord) -> bool:
    return "gemm_4bit_forward" not in record.getMessage()


def is_quantised(model: Any) -> bool:
    """Whether a model's weights are rounded to few bits, so that they can't train, or be merged with an adapter."""
    from veridical.vlm.model.families import base_model

    return getattr(base_model(model), "quantization_method", None) is not None


def compile_language_model(model: Any, backend: str = "inductor") -> None:
    """Compile the language model inside, in place, for shapes of any length."""
    from veridical.vlm.model.families import base_model

    base_model(model).get_decoder().compile(dynamic=True, backend=backend)


def is_compiled(model: Any) -> bool:
    """Whether `compile_language_model` was called. A compiled model is always given a mask: with one now and none then,
    it would be compiled twice."""
    from veridical.vlm.model.families import base_model

    return getattr(base_model(model).get_decoder(), "_compiled_call_impl", None) is not None
