"""Answer-only adapters: they act from the invocation tokens on, and leave the image and the prompt to the base.

Activated LoRA (Greenewald et al. 2025, arXiv 2504.12397; PEFT's `alora_invocation_tokens`). The invocation tokens are
what the chat template writes between the user's turn and the answer, such as "ASSISTANT:". All before them is read by
the frozen base model, so its keys and values need no gradient, serve policy and reference alike, and may be kept
between epochs. Here such an adapter is an ordinary LoRA that is off while the prefix is read and on from the invocation
tokens on; saved, it holds their ids, by which PEFT finds the same place in a whole row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from veridical.errors import UserError
from veridical.records import Message
from veridical.vlm.model import chat

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm

# Prompts that differ up to their last character: what their ends have in common is the template's.
_PROMPTS = ("Describe 7", "Is it so?")


def invocation_tokens(vlm: Vlm) -> tuple[int, ...]:
    """Token ids that the chat template puts after every prompt, before the answer. Raises `UserError` for none."""
    rows = [
        vlm.tokenizer(
            vlm.processor.apply_chat_template(
                chat.messages((Message("user", text),), (), vlm.traits.chat.plain),
                add_generation_prompt=True,
                tokenize=False,
            ),
            add_special_tokens=False,
        ).input_ids
        for text in _PROMPTS
    ]
    same = 0
    while same < min(map(len, rows)) and len({row[-1 - same] for row in rows}) == 1:
        same += 1
    if not same:
        raise UserError(
            f"The chat template of {vlm.name} writes nothing between prompt and answer, so an answer-only adapter "
            "would not know where answers begin. Train an ordinary one (lora.acts_on: everything)."
        )
    return tuple(rows[0][-same:])
