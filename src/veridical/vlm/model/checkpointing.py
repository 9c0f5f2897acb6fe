"""Gradient checkpointing beside a key-value cache, which transformers switches off unless told that it is
safe.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_FLAG = "_can_checkpoint_with_cache"


def obstacle(model: Any) -> str:
    """Why a prefix can't be shared under the model's present checkpointing, or an empty string where it can."""
    layers = _checkpointed(model)
    if not layers:
        return ""
    if not all(hasattr(layer, _FLAG) for layer in layers):
        return "this version of transformers can't keep a cache under gradient checkpointing"
    if any(_reentrant(layer) for layer in layers):
        return "gradient checkpointing is reentrant; enable it with use_reentrant=False"
    return ""


@contextmanager
def keeping_cache(model: Any) -> Iterator[None]:
    """Let checkpointed layers use a cache; right only with caches whose update is idempotent
    (`vlm/prefix/cache.py`).
    """
    layers = _checkpointed(model)
    for layer in layers:
        setattr(layer, _FLAG, True)
    try:
        yield
    finally:
        for layer in layers:
            delattr(layer, _FLAG)


def _checkpointed(model: Any) -> list[Any]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    if not model.training:
        return []
    layers = (module for module in model.modules() if isinstance(module, GradientCheckpointingLayer))
    return [layer for layer in layers if layer.gradient_checkpointing and layer.training]


def _reentrant(layer: Any) -> bool:
    keywords = getattr(layer._gradient_checkpointing_func, "keywords", {})
    return bool(keywords.get("use_reentrant", False))
