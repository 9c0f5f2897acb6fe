"""What layers before the last would predict: their hidden states, read by the model's own output layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from veridical.errors import UserError
from veridical.vlm.model import families

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm


def layer_count(vlm: Vlm) -> int:
    """How many layers the language model has. Raises `UserError` for one whose layers can't be found."""
    return len(_layers(vlm))


@contextmanager
def shown(vlm: Vlm, early_layers: Sequence[int]) -> Iterator[None]:
    """Make the model return logits [..., (1 + early_layers) * vocabulary]: its own, then those of each early layer.

    Layer 0 is the embeddings, layer n the n-th, before the closing norm, as DoLa's released code has it.
    """
    from transformers.modeling_utils import slice_logits_to_keep

    layers = _layers(vlm)
    head = families.base_model(vlm.model).get_output_embeddings()
    kept: dict[str, Any] = {}
    hidden: dict[int, Tensor] = {}

    def remember_what_is_asked(_module: Any, _positional: Any, named: dict[str, Any]) -> None:
        kept["places"] = named["logits_to_keep"]

    def remember_input(_module: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        hidden[0] = positional[0] if positional else named["hidden_states"]

    def remember(layer: int) -> Any:
        def hook(_module: Any, _positional: Any, output: Any) -> None:
            hidden[layer] = output if isinstance(output, Tensor) else output[0]

        return hook

    def widen(_module: Any, _positional: Any, output: Tensor) -> Tensor:
        early = [head.forward(slice_logits_to_keep(hidden[layer], kept["places"])) for layer in early_layers]
        hidden.clear()
        return torch.cat([output, *early], dim=-1)

    handles = [vlm.model.register_forward_pre_hook(remember_what_is_asked, with_kwargs=True)]
    handles += [layers[layer - 1].register_forward_hook(remember(layer)) for layer in early_layers if layer]
    if 0 in early_layers:
        handles.append(layers[0].register_forward_pre_hook(remember_input, with_kwargs=True))
    handles.append(head.register_forward_hook(widen))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _layers(vlm: Vlm) -> Any:
    layers = getattr(families.base_model(vlm.model).get_decoder(), "layers", None)
    if layers is None:
        raise UserError(f"{vlm.name} ({vlm.family}) doesn't expose its layers, so early layers can't be read.")
    return layers
