"""What a model's chat template says: how a prompt is written, and what ends an answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from veridical.errors import UserError
from veridical.records import Message

_MARK = "veridicalmark"


def messages(prompt: Sequence[Message], images: Sequence[Any]) -> list[dict[str, Any]]:
    """The prompt in the form chat templates read; `images` stand at the start of the first user turn."""
    first_user = next((index for index, turn in enumerate(prompt) if turn.role == "user"), None)
    if first_user is None:
        raise UserError("A prompt needs a user turn. Give it at least one.")
    conversation = []
    for index, turn in enumerate(prompt):
        shown = [{"type": "image", "image": image} for image in images] if index == first_user else []
        conversation.append({"role": turn.role, "content": [*shown, {"type": "text", "text": turn.text}]})
    return conversation


def end_of_turn(processor: Any, tokenizer: Any, eos_ids: Collection[int]) -> tuple[int, ...]:
    """The token ids that end an answer, found by rendering a dialogue and reading on after the answer.

    Usually one special token. A template that writes nothing special there (LLaVA-1.5) leaves it to the next
    turn's role token if generation stops on that (GLM), or else to the tokenizer's end of sequence.
    """
    dialogue = (Message("user", "Hello."), Message("assistant", _MARK))
    alone = _ids_to_first_special(tokenizer, _after_mark(processor, dialogue))
    if alone:
        return alone
    followed = _ids_to_first_special(tokenizer, _after_mark(processor, (*dialogue, Message("user", "Hello."))))
    if followed and followed[-1] in eos_ids:
        return followed
    if tokenizer.eos_token_id is None:
        raise UserError(
            "The chat template ends an answer with nothing, and the tokenizer has no end-of-sequence token."
        )
    return (int(tokenizer.eos_token_id),)


def _after_mark(processor: Any, dialogue: Sequence[Message]) -> str:
    conversation = messages(dialogue, ())
    rendered = str(processor.apply_chat_template(conversation, add_generation_prompt=False))
    if _MARK not in rendered:
        plain = [{"role": turn.role, "content": turn.text} for turn in dialogue]
        rendered = str(processor.apply_chat_template(plain, add_generation_prompt=False))
    if _MARK not in rendered:
        raise UserError("The chat template leaves out the assistant's answer; give the model a template that shows it.")
    return rendered.rpartition(_MARK)[2]


def _ids_to_first_special(tokenizer: Any, text: str) -> tuple[int, ...]:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    special = special_ids(tokenizer)
    for index, token in enumerate(ids):
        if token in special:
            return tuple(ids[: index + 1])
    return ()


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of all tokens that stand for control, not for text."""
    added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(added | set(tokenizer.all_special_ids))
