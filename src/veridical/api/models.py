"""`veridical.load` and `veridical.wrap`: models to work with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from veridical.api.settings import WRAPPED

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm


def load(
    model: str | Path = "bundled",
    *,
    adapter: str | Path | None = None,
    dtype: str = "auto",
    device: str = "auto",
    allow_remote_code: bool = False,
    max_pixels: int | None = None,
    max_image_tokens: int | None = None,
) -> Vlm:
    """Load an image-text-to-text model: `bundled`, a folder, or a name on the Hugging Face hub.

    Args:
        model: which one.
        adapter: a folder in PEFT's layout, that of a finished alignment, or hf://OWNER/NAME.
        dtype: auto (bfloat16 on a GPU, else float32), float32, bfloat16 or float16.
        device: auto (a GPU if there is one), cpu, cuda, ....
        allow_remote_code: let the model bring its own Python code.
        max_pixels: the most pixels that an image is scaled to, for families that scale images or cut them into tiles.
        max_image_tokens: the most tokens that an image takes, for the same families.

    Raises:
        UserError: a model that isn't there or isn't of this kind, an adapter that doesn't fit, and limits that the
            model's family doesn't have.
    """
    from veridical.vlm.load import load as load_model
    from veridical.vlm.model.image_limits import ImageLimits

    place = None if adapter is None else Path(adapter).expanduser()
    if place is not None and (place / "adapter").is_dir():
        place /= "adapter"
    return load_model(
        str(model),
        adapter=place,
        dtype=dtype,
        device=device,
        allow_remote_code=allow_remote_code,
        limits=ImageLimits(max_pixels, max_image_tokens),
    )


def wrap(model: Any, processor: Any, *, name: str = "model") -> Vlm:
    """Take a transformers model and its processor that are in memory.

    To train or to measure it, a copy is written to a temporary folder, since both put adapters on a model of their own.
    """
    from veridical.vlm.load import assemble

    return assemble(f"{WRAPPED}-{name}", model.eval(), processor)
