"""What a score is by definition: one full forward of transformers' own model on one whole row.

Nothing here calls the engine; tests compare it with this.
"""

from __future__ import annotations

import numpy
import torch
from PIL import Image

from veridical.records import Message
from veridical.vlm.inputs.context import Context

DESCRIBE = (Message("user", "Describe this image."),)
ANSWERS = (
    ("Yes.", "There is a fork and a knife on the table.", "No."),
    ("I can also see two cups in this picture.",),
    ("A dog and a ball.", "The cat sits behind the red car."),
)


PER_TOKEN = (
    "attention_mask",
    "token_type_ids",
    "mm_token_type_ids",
    "cross_attention_mask",
    "image_embeds_position_mask",
)


def picture(seed: int, width: int = 96, height: int = 96) -> Image.Image:
    """Large coloured patches, which differ between seeds and survive resizing."""
    patches = numpy.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=numpy.uint8)
    return Image.fromarray(patches).resize((width, height), Image.Resampling.NEAREST)


def contexts() -> list[Context]:
    """Three contexts of different lengths: one image, one of another size, and two images after a system turn."""
    return [
        Context((picture(0),), DESCRIBE, key=("first",)),
        Context((picture(1, 112, 60),), (Message("user", "Is there a fork in the image?"),), key=("second",)),
        Context(
            (picture(2, 60, 112), picture(3)),
            (
                Message("system", "Yes."),
                Message("user", "What is on the left?"),
                Message("assistant", "A cat."),
                Message("user", "And?"),
            ),
            key=("third",),
        ),
    ]


def prompt_inputs(vlm, context: Context):
    """The processor's tensors for a context, by rendering its prompt as text first."""
    images = list(context.images)
    text = rendered(vlm, context.prompt, len(images), add_generation_prompt=True)
    inputs = vlm.processor(
        images=[images] if images else None, text=[text], return_tensors="pt", add_special_tokens=False
    )
    inputs.pop("labels", None)
    return inputs


def rendered(vlm, prompt, images: int = 0, **options) -> str:
    """What the chat template writes; contents are lists of parts, or strings for the roles that it wants so."""
    messages = []
    for turn in prompt:
        first = turn.role == "user" and all(message["role"] != "user" for message in messages)
        shown = [{"type": "image"}] * images if first else []
        parts = [*shown, {"type": "text", "text": turn.text, "content": turn.text}]
        messages.append({"role": turn.role, "content": turn.text if turn.role in vlm.traits.chat.plain else parts})
    return vlm.processor.apply_chat_template(messages, tokenize=False, **options)


def answer_ids(vlm, answer: str) -> list[int]:
    """The tokens of an answer and of its end: the difference of two renderings, up to the first control token."""
    question = Message("user", "What is this?")
    texts = (
        rendered(vlm, (question,), add_generation_prompt=True),
        rendered(vlm, (question, Message("assistant", answer))),
    )
    prompt, whole = (vlm.tokenizer(text, add_special_tokens=False).input_ids for text in texts)
    assert whole[: len(prompt)] == prompt
    ids = whole[len(prompt) :]
    special = {token for token, added in vlm.tokenizer.added_tokens_decoder.items() if added.special}
    ends = [place for place, token in enumerate(ids) if token in special]
    if ends:
        return ids[: ends[0] + 1]
    # Nothing ends the last answer: what stands after it (a space, a line break) comes with the next turn.
    kept = len(vlm.tokenizer(texts[0] + texts[1][len(texts[0]) :].rstrip(), add_special_tokens=False).input_ids)
    return [*whole[len(prompt) : kept], *vlm.traits.end_ids]


def extended(vlm, inputs, ids: list[int]):
    """The inputs with further text tokens behind the prompt: every per-token input gets what such tokens have."""
    added = torch.tensor([ids], dtype=torch.long)
    longer = dict(inputs)
    for key, tensor in inputs.items():
        if key == "input_ids":
            longer[key] = torch.cat([tensor, added], 1)
        elif key in PER_TOKEN:
            # PaliGemma's answers are of type 1; Mllama's see the images that the prompt's last token sees.
            value = int(key == "attention_mask" or (vlm.family, key) == ("paligemma", "token_type_ids"))
            more = tensor[:, -1:].expand(-1, len(ids), *tensor.shape[2:])
            longer[key] = torch.cat([tensor, more if tensor.ndim > 2 else torch.full_like(more, value)], 1)
    return longer


def answer_logprobs(vlm, context: Context, answer: str) -> torch.Tensor:
    """Log-probabilities of the answer's tokens and the end-of-sequence token, from one full forward."""
    ids = answer_ids(vlm, answer)
    return answer_distributions(vlm, context, answer)[range(len(ids)), ids]


def answer_distributions(vlm, context: Context, answer: str) -> torch.Tensor:
    """Log-probabilities [tokens, vocabulary] at the places of those tokens, from one full forward."""
    ids = answer_ids(vlm, answer)
    inputs = extended(vlm, prompt_inputs(vlm, context), ids)
    logits = vlm.model(**inputs, use_cache=False).logits[0, -len(ids) - 1 : -1]
    return logits.float().log_softmax(-1)


def all_logprobs(vlm) -> list[list[torch.Tensor]]:
    return [
        [answer_logprobs(vlm, context, answer) for answer in answers]
        for context, answers in zip(contexts(), ANSWERS, strict=True)
    ]


def weighted_sum(scores: list[list[torch.Tensor]]) -> torch.Tensor:
    """A loss to which every token contributes with its own weight and sign."""
    flat = torch.cat([answer for answers in scores for answer in answers])
    return (flat * torch.linspace(-1, 2, len(flat)).cos()).sum()


def largest_difference(a: list[list[torch.Tensor]], b: list[list[torch.Tensor]]) -> float:
    pairs = zip([x for one in a for x in one], [x for one in b for x in one], strict=True)
    return max(float((x - y).detach().abs().max()) for x, y in pairs)
