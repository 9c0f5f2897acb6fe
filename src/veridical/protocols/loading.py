"""Loads a model to measure, as an evaluation's settings say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from veridical.decoding.best_of_n import BestOfN
from veridical.protocols.config import EvalConfig, methods_of
from veridical.protocols.models import Measured

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm


def load_measured(model: Measured, config: EvalConfig, base: Vlm | None) -> Vlm:
    """The model to measure next; an adapter goes onto the base if that is in memory, untouched."""
    from veridical.vlm.load import load, with_adapter
    from veridical.vlm.model.adapters import merged
    from veridical.vlm.model.image_limits import ImageLimits
    from veridical.vlm.model.load_options import LoadOptions

    if model.adapter and base and base.name == model.model:
        vlm = with_adapter(base, model.adapter)
    else:
        limits = ImageLimits(config.max_pixels, config.max_image_tokens)
        vlm = load(
            model.model,
            adapter=model.adapter,
            dtype=config.dtype,
            device=config.device,
            limits=limits,
            options=LoadOptions(config.attention, config.quantise, config.compile),
        )
    # Best-of-n needs the base that the adapter was trained on.
    wanted = config.merge_adapters and not any(isinstance(method, BestOfN) for method in methods_of(config))
    return merged(vlm) if model.adapter and wanted else vlm
