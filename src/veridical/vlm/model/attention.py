"""Attention weights of the language model's last layer, as transformers returns them with eager attention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from veridical.errors import UserError
from veridical.vlm.model import families

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm


class LastLayer:
    """What the last token of each pass attended to in the last layer."""

    def __init__(self) -> None:
        self._seen: list[Tensor] = []

    def remember(self, weights: Tensor) -> None:
        """`weights` [rows, heads, queries, keys] of one pass."""
        self._seen.append(weights[:, :, -1])

    def clear(self) -> None:
        """Forget all passes."""
        self._seen.clear()

    def weights(self) -> Tensor:
        """[rows, heads, keys] of the passes since, which must be equally long."""
        return torch.cat(self._seen)


@contextmanager
def shown(vlm: Vlm) -> Iterator[LastLayer]:
    """While this lasts, the language model attends eagerly and its last layer's weights are remembered.

    Raises `UserError`, at the first pass, for a model that returns none.
    """
    decoder = families.base_model(vlm.model).get_decoder()
    before = decoder.config._attn_implementation
    recorder = LastLayer()

    def ask(_module: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return positional, {**named, "output_attentions": True}

    def remember(_module: Any, _positional: Any, output: Any) -> None:
        weights = (getattr(output, "attentions", None) or (None,))[-1]
        if weights is None:
            raise UserError(
                f"{vlm.name} ({vlm.family}) returns no attention weights of its last layer, which OPERA reads. "
                "Choose another method of decoding, such as vcd or vdd."
            )
        recorder.remember(weights)

    handles = [decoder.register_forward_pre_hook(ask, with_kwargs=True), decoder.register_forward_hook(remember)]
    try:
        decoder.set_attn_implementation("eager")
        yield recorder
    finally:
        decoder.set_attn_implementation(before)
        for handle in handles:
            handle.remove()
