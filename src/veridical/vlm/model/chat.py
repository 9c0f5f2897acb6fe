"""What a model's chat template says: how a prompt and the start of an answer are written, and what ends an answer.

When a model is loaded a marked dialogue is rendered, and what the template does with it is kept as a `ChatFormat`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from veridical.errors import DataWarning, Notice, UserError
from veridical.records import Message, Role

_MARKS = ("veridicalmarka", "veridicalmarkb", "veridicalmarkc")


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How a chat template wants messages, and how it writes the start of an answer.

    `plain` are the roles whose content must be a string rather than a list of parts. `lead` is what the template
    writes between the prompt and an answer's first word, such as the space after "Assistant:". `anchor` is the end of
    a prompt from its last special token on: an answer is tokenised after it, since the word mark of a first token
    depends on what precedes it. `anchor_ids` are its tokens. `opening` is more than a space that the template writes
    before an answer and leaves out of a prompt, such as an empty block of thoughts or a token that opens an answer.
    """

    plain: frozenset[Role] = frozenset()
    lead: str = ""
    anchor: str = ""
    anchor_ids: tuple[int, ...] = ()
    opening: str = ""


def read_format(processor: Any, tokenizer: Any) -> ChatFormat:
    """What the template does with a marked dialogue. Raises `UserError` where it leaves out what the user asks."""
    plain = _plain_roles(processor)
    question = (Message("user", _MARKS[0]),)
    prompt = _render(processor, question, plain, generate=True)
    answered = _render(processor, (*question, Message("assistant", _MARKS[1])), plain)
    if not answered.startswith(prompt):
        warnings.warn(
            f"The chat template ends a prompt in {prompt[-30:]!r} and writes something else before an answer: answers "
            "are scored after the prompt's own end.",
            DataWarning,
            stacklevel=2,
        )
        return ChatFormat(plain)
    lead = answered[len(prompt) :].partition(_MARKS[1])[0]
    if opening := lead.rstrip(" "):
        return ChatFormat(plain, opening=opening)
    last = max((place for token in _special_texts(tokenizer) if (place := prompt.rfind(token)) >= 0), default=0)
    anchor = prompt[last:]
    ids = tokenizer(anchor, add_special_tokens=False).input_ids
    return ChatFormat(plain, lead, anchor, tuple(ids))


def opened(processor: Any, tokenizer: Any) -> ChatFormat:
    """What the template does with a marked dialogue, and have prompts end in all that it writes before an answer.

    So an answer is scored and generated at the place where the template puts it, and training and evaluation show the
    same prompt. Changes the processor's template where that takes something; says so where it is more than a space.
    """
    style = read_format(processor, tokenizer)
    if not style.opening or not isinstance(processor.chat_template, str):
        return style
    if style.opening.strip():
        warnings.warn(
            f"The chat template writes {style.opening!r} between a prompt and its answer: prompts end in it here, so "
            "answers follow it when they are generated, too.",
            Notice,
            stacklevel=2,
        )
    processor.chat_template += "{% if add_generation_prompt %}{{ " + json.dumps(style.opening) + " }}{% endif %}"
    return read_format(processor, tokenizer)


def answer_encoding(tokenizer: Any, style: ChatFormat, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of an answer as the template writes it, and the range of `text` that each covers.

    Ranges are empty lists where the tokenizer doesn't know them.
    """
    fast = bool(tokenizer.is_fast)
    for before, skipped in ((style.anchor + style.lead, style.anchor_ids), (style.lead, ()), ("", ())):
        encoded = tokenizer(before + text, add_special_tokens=False, return_offsets_mapping=fast)
        ids = list(encoded["input_ids"])
        if tuple(ids[: len(skipped)]) == tuple(skipped):
            break
    ranges = encoded["offset_mapping"][len(skipped) :] if fast else []
    shift = len(before)
    return ids[len(skipped) :], [(max(start - shift, 0), max(end - shift, 0)) for start, end in ranges]


def messages(
    prompt: Sequence[Message], images: Sequence[Any], plain: Collection[Role] = frozenset()
) -> list[dict[str, Any]]:
    """The prompt in the form chat templates read; `images` stand at the start of the first user turn.

    Contents are lists of parts but for the `plain` roles'. A text is given under two keys, since some templates look
    for it under "content".
    """
    first_user = next((index for index, turn in enumerate(prompt) if turn.role == "user"), None)
    if first_user is None:
        raise UserError("A prompt needs a user turn. Give it at least one.")
    conversation: list[dict[str, Any]] = []
    for index, turn in enumerate(prompt):
        shown = [{"type": "image", "image": image} for image in images] if index == first_user else []
        text = {"type": "text", "text": turn.text, "content": turn.text}
        parts = turn.text if turn.role in plain and not shown else [*shown, text]
        conversation.append({"role": turn.role, "content": parts})
    return conversation


def left_out(prompt: Sequence[Message], rendered: str) -> Message | None:
    """The first turn whose text is not in a rendered prompt, in its order; None where all are.

    A system turn may stand anywhere: some templates put it before the last question.
    """
    start = 0
    for turn in prompt:
        text = turn.text.strip()
        place = rendered.find(text, 0 if turn.role == "system" else start)
        if place < 0:
            return turn
        if turn.role != "system":
            start = place + len(text)
    return None


def end_of_turn(
    processor: Any, tokenizer: Any, eos_ids: Collection[int], plain: Collection[Role] = frozenset()
) -> tuple[int, ...]:
    """The token ids that end an answer, found by rendering a dialogue and reading on after the answer.

    Usually one special token. A template that writes nothing special there (LLaVA-1.5) leaves it to the next
    turn's role token if generation stops on that (GLM), or else to the tokenizer's end of sequence.
    """
    dialogue = (Message("user", "Hello."), Message("assistant", _MARKS[1]))
    alone = _ids_to_first_special(tokenizer, _after_mark(processor, dialogue, plain))
    if alone:
        return alone
    longer = (*dialogue, Message("user", "Hello."))
    followed = _ids_to_first_special(tokenizer, _after_mark(processor, longer, plain))
    if followed and followed[-1] in eos_ids:
        return followed
    if tokenizer.eos_token_id is None:
        raise UserError(
            "The chat template ends an answer with nothing, and the tokenizer has no end-of-sequence token."
        )
    return (int(tokenizer.eos_token_id),)


def closing_ids(processor: Any, tokenizer: Any, style: ChatFormat) -> tuple[int, ...]:
    """All token ids that the template writes after a dialogue's last answer, a line break after its end included."""
    dialogue = (Message("user", "Hello."), Message("assistant", _MARKS[1]))
    return tuple(tokenizer(_after_mark(processor, dialogue, style.plain), add_special_tokens=False).input_ids)


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of all tokens that stand for control, not for text."""
    added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(added | set(tokenizer.all_special_ids))


def _special_texts(tokenizer: Any) -> list[str]:
    return [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special and str(token)]


def _plain_roles(processor: Any) -> frozenset[Role]:
    """The roles whose content the template reads as a string only."""
    question, answer, further = Message("user", _MARKS[0]), Message("assistant", _MARKS[1]), Message("user", _MARKS[2])
    dialogues = ((question, answer, further), (question, answer), (question,))
    forms: tuple[frozenset[Role], ...] = (
        frozenset(),
        frozenset({"assistant"}),
        frozenset({"assistant", "user"}),
    )
    for dialogue in dialogues:
        for plain in forms:
            if _is_shown(processor, dialogue, plain):
                system = (Message("system", _MARKS[2]), question)
                as_parts = _is_shown(processor, system, plain)
                return plain if as_parts or not _is_shown(processor, system, plain | {"system"}) else plain | {"system"}
    raise UserError(
        "The chat template leaves out what the user asks, or writes it as something else. Give the model a template "
        "that shows the text of every turn (chat_template.jinja beside the processor)."
    )


def _is_shown(processor: Any, dialogue: Sequence[Message], plain: Collection[Role]) -> bool:
    """Whether a template shows every turn's text once, in order, and nothing of the list that it came in."""
    try:
        rendered = _render(processor, dialogue, plain)
    except Exception:  # a template raises whatever its author chose
        return False
    whole = left_out(dialogue, rendered) is None and all(rendered.count(turn.text) == 1 for turn in dialogue)
    return whole and "'type'" not in rendered and '"type"' not in rendered


def _render(processor: Any, dialogue: Sequence[Message], plain: Collection[Role], generate: bool = False) -> str:
    conversation = messages(dialogue, (), plain)
    return str(processor.apply_chat_template(conversation, add_generation_prompt=generate, tokenize=False))


def _after_mark(processor: Any, dialogue: Sequence[Message], plain: Collection[Role]) -> str:
    rendered = _render(processor, dialogue, plain)
    if _MARKS[1] not in rendered:
        raise UserError("The chat template leaves out the assistant's answer; give the model a template that shows it.")
    return rendered.rpartition(_MARKS[1])[2]


def _ids_to_first_special(tokenizer: Any, text: str) -> tuple[int, ...]:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    special = special_ids(tokenizer)
    for index, token in enumerate(ids):
        if token in special:
            return tuple(ids[: index + 1])
    return ()
