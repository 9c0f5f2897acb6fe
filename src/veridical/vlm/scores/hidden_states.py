"""What the language model holds, layer by layer, at the place from which it predicts the first answer token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from veridical.vlm.inputs.context import Context
from veridical.vlm.inputs.prepare import prepare

if TYPE_CHECKING:
    from torch import Tensor

    from veridical.vlm.model.loading import Vlm


def hidden_states(vlm: Vlm, contexts: Sequence[Context]) -> Tensor:
    """Hidden states (fp32) [contexts, layers, width] at the last prompt token, without gradients.

    Layer 0 is the token's embedding and says nothing of the image; the others are the outputs of the language
    model's layers in order, the last one after its closing norm.
    """
    import torch

    from veridical.vlm.inputs import batch as batches
    from veridical.vlm.model import families
    from veridical.vlm.prefix import features as tower
    from veridical.vlm.prefix import forward

    prepared = [prepare(vlm, context) for context in contexts]
    batch = batches.collate(vlm, prepared)
    places, _ = families.positions(vlm.model, batch)
    batch = batches.with_hidden(batch, prepared)
    with torch.no_grad():
        seen = tower.image_features(vlm, batch, prepared) if vlm.traits.takes_features else None
        shown = seen and [tower.under_view(one, context) for one, context in zip(seen, prepared, strict=True)]
        inputs = forward.prefix_inputs(batch, shown)
        output = vlm.model(**inputs, position_ids=places, output_hidden_states=True, use_cache=False, logits_to_keep=1)
    # Prompts are padded on the left, so the last place is every prompt's last token.
    return torch.stack([layer[:, -1].float() for layer in output.hidden_states], dim=1)
