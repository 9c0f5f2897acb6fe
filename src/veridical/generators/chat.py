"""Requests to a model as chat completions, and what the replies say: texts, and log-probabilities in two forms."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from veridical.http_client import BadReplyError, CallError
from veridical.judges.chat_completions import next_refused as next_optional
from veridical.judges.chat_completions import whole_characters
from veridical.records import Message
from veridical.vlm.generation.params import SamplingParams

MOST_LIKELY = 20
"""Likeliest first tokens that a server is asked for; 20 is the most that OpenAI and vLLM give by default."""
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Told:
    """What a server says of one answer: the text, whether it is whole, and of its tokens, where asked for, each one's
    text and log-probability beside those of the likeliest."""

    text: str
    finished: bool
    tokens: tuple[tuple[str, float, Mapping[str, float]], ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """A reply: the answers, the model's id as the server gives it, and its count of tokens.

    `prompt` holds, where asked for, each prompt token's log-probability by its id.
    """

    answers: tuple[Told, ...]
    model: str
    prompt_tokens: int
    completion_tokens: int
    prompt: tuple[Mapping[int, float], ...] = ()


def messages(prompt: Sequence[Message], images: Sequence[str], answer: str | None = None) -> list[dict[str, Any]]:
    """A conversation in JSON, images (data URLs) before the first user turn's text, as the local engine places them."""
    turns: list[dict[str, Any]] = []
    first_user = next((place for place, turn in enumerate(prompt) if turn.role == "user"), None)
    for place, turn in enumerate(prompt):
        shown = images if place == first_user else ()
        parts = [{"type": "image_url", "image_url": {"url": url}} for url in shown]
        content = [*parts, {"type": "text", "text": turn.text}] if parts else turn.text
        turns.append({"role": turn.role, "content": content})
    if answer is not None:
        turns.append({"role": "assistant", "content": answer})
    return turns


def sampled(sampling: SamplingParams, count: int, seed: int) -> dict[str, Any]:
    """The fields by which `count` answers are drawn."""
    fields: dict[str, Any] = {"max_tokens": sampling.max_new_tokens, "temperature": sampling.temperature, "seed": seed}
    if sampling.top_p < 1:
        fields["top_p"] = sampling.top_p
    if sampling.top_k:
        fields["top_k"] = sampling.top_k
    if sampling.stop:
        # vLLM's word and SGLang's.
        fields |= {"stop": list(sampling.stop), "include_stop_str_in_output": True, "no_stop_trim": True}
    if count > 1:
        fields["n"] = count
    return fields


CONTINUED: Mapping[str, Any] = {"continue_final_message": True, "add_generation_prompt": False}
"""The last message is an answer that is not yet whole."""
WHOLE: Mapping[str, Any] = {"continue_final_message": False, "add_generation_prompt": False}
"""The last message is a whole answer, and nothing follows it."""
FIRST_TOKEN: Mapping[str, Any] = {
    "max_tokens": 1,
    "temperature": 0.0,
    "logprobs": True,
    "top_logprobs": MOST_LIKELY,
}


def body_of(model: str, fields: Mapping[str, Any], refused: AbstractSet[str], extra: Mapping[str, Any]) -> bytes:
    """The JSON of a request, without the optional parameters that the server has refused."""
    body = {"model": model, **fields, "stream": False}
    if "max_tokens" in refused and "max_tokens" in body:
        body["max_completion_tokens"] = body["max_tokens"]
    kept = {key: value for key, value in body.items() if key not in refused} | dict(extra)
    return json.dumps({key: value for key, value in kept.items() if value is not None}).encode()


def next_refused(message: str, refused: frozenset[str]) -> str | None:
    """The optional parameter to try without, after a refusal; None where the refusal is about something else."""
    return next_optional(message, refused)


def read_completion(content: bytes) -> Completion:
    """The answers in the body of a response. Raises BadReplyError for what is no chat completion."""
    try:
        reply = json.loads(content.decode())
        usage = reply.get("usage") or {}
        return Completion(
            tuple(_told(choice) for choice in reply["choices"]),
            str(reply.get("model") or ""),
            int(usage.get("prompt_tokens") or 0),
            int(usage.get("completion_tokens") or 0),
            tuple(_entry(entry) for entry in reply.get("prompt_logprobs") or ()),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise BadReplyError(
            f"the reply is no chat completion: {content[:_SHOWN].decode(errors='replace')!r}"
        ) from error


def read_tokens(content: bytes) -> tuple[int, ...]:
    """The ids in what `/tokenize` says. Raises BadReplyError for anything else."""
    try:
        return tuple(int(token) for token in json.loads(content.decode())["tokens"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadReplyError(f"no tokens: {content[:_SHOWN].decode(errors='replace')!r}") from error


def _told(choice: Mapping[str, Any]) -> Told:
    text = choice["message"].get("content") or ""
    if isinstance(text, list):
        text = "".join(part.get("text") or "" for part in text)
    shown = (choice.get("logprobs") or {}).get("content") or ()
    tokens = tuple(
        (
            str(one["token"]),
            float(one["logprob"]),
            {str(other["token"]): float(other["logprob"]) for other in reversed(one.get("top_logprobs") or ())},
        )
        for one in shown
    )
    if choice.get("finish_reason") == "content_filter":
        raise CallError("the endpoint's filter kept the answer back", "generator-filtered", "leave the record out")
    return Told(whole_characters(str(text)), choice.get("finish_reason") != "length", tokens)


def _entry(entry: Mapping[str, Any] | None) -> Mapping[int, float]:
    """A prompt token's log-probability, and those of others beside it, by id; nothing for the first token."""
    return {int(token): float(candidate["logprob"]) for token, candidate in (entry or {}).items()}


def first_of(choices: Sequence[str], likeliest: Mapping[str, float]) -> tuple[float | None, ...]:
    """The log-probability of each text among the likeliest first tokens; None for one that isn't a token there.

    A text of several tokens is none of them. Of a word with and without a space before it, the likelier is the one that
    the chat template leads to; a server that tells tokens by their ids leaves no doubt.
    """
    return tuple(
        max((value for token, value in likeliest.items() if token.strip() == choice.strip()), default=None)
        for choice in choices
    )


def why_dishonest(told: Told) -> str:
    """What shows that a greedy answer's log-probabilities can't be such; empty if nothing does."""
    for token, value, likeliest in told.tokens:
        values = [value, *likeliest.values()]
        if not all(math.isfinite(one) and one <= 1e-4 for one in values):
            return f"that of {token!r} is {value:g}"
        if math.fsum(math.exp(one) for one in likeliest.values()) > 1.01:
            return f"the probabilities of the likeliest tokens at {token!r} sum up to more than 1"
        if likeliest and value < max(likeliest.values()) - 0.05:
            return f"the likeliest token at {token!r} is another, and yet it was taken"
    return ""
