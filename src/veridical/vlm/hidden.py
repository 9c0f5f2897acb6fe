"""What the language model holds, layer by layer, at the place from which it predicts the first answer token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from veridical.vlm.inputs import Context, prepare

if TYPE_CHECKING:
    from torch import Tensor

    from veridical.vlm.loading import Vlm


def hidden_states(vlm: Vlm, contexts: Sequence[Context]) -> Tensor:
    """Hidden states (fp32) [contexts, layers, width] at the last prompt token, without gradients.

    Layer 0 is the token's embedding and says nothing of the image; the others are the outputs of the language
    model's layers in order, the last one after its closing norm.
    """
    import torch

    from veridical.vlm import batch as batches
    from veridical.vlm import families

    batch = batches.collate(vlm, [prepare(vlm, context) for context in contexts])
    places, _ = families.positions(vlm.model, batch)
    with torch.no_grad():
        output = vlm.model(**batch, position_ids=places, output_hidden_states=True, use_cache=False, logits_to_keep=1)
    # Prompts are padded on the left, so the last place is every prompt's last token.
    return torch.stack([layer[:, -1].float() for layer in output.hidden_states], dim=1)
