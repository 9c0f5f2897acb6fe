"""What the protocols about captions have in common: one greedy caption a picture, with the same prompt and length."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from veridical.protocols import chair
from veridical.protocols.eval_task import Request
from veridical.protocols.sources import Pictures
from veridical.records import Message
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.images.views import Clean, View

if TYPE_CHECKING:
    from veridical.protocols.config import EvalConfig

OWN_TOKENS = 256
"""Longest caption of pictures that nothing is annotated in; on annotated ones it is CHAIR's, `chair.MAX_NEW_TOKENS`."""


def caption_requests(
    pictures: Pictures, config: EvalConfig, view: View | None = None, temperature: float = 0.0
) -> dict[str, Request]:
    """A caption of each picture, by record id; greedy at temperature 0. Protocols that share it ask once."""
    prompt = (Message("user", config.prompt or chair.PROMPT),)
    sampling = SamplingParams(max_new_tokens=longest(pictures, config), temperature=temperature)
    return {
        r.id: Request(r.images, prompt, sampling, view=view or Clean(), key=("chair", r.id)) for r in pictures.records
    }


def longest(pictures: Pictures, config: EvalConfig) -> int:
    """The limit of new tokens in a caption."""
    return config.max_new_tokens or (chair.MAX_NEW_TOKENS if pictures.annotated else OWN_TOKENS)


def caption_settings(pictures: Pictures, config: EvalConfig) -> dict[str, Any]:
    """What results.json says about how captions were asked for."""
    limit = longest(pictures, config)
    return {"prompt": config.prompt or chair.PROMPT, "decoding": "greedy", "max_new_tokens": limit}


def caption_name(name: str, pictures: Pictures, config: EvalConfig) -> str:
    """The protocol's name, with a prompt or a length of the user's own."""
    prompt = f" + {config.prompt!r}" if config.prompt not in (None, chair.PROMPT) else ""
    usual = chair.MAX_NEW_TOKENS if pictures.annotated else OWN_TOKENS
    limit = f", {config.max_new_tokens} tokens" if config.max_new_tokens not in (None, usual) else ""
    return f"{name}{prompt}{limit}"


def caption_row(item: chair.ChairItem) -> dict[str, Any]:
    """A caption as a row of JSON; `wrong` are the spans of characters that name what is not in the image."""
    return {**asdict(item), "wrong": [[m.start, m.end] for m in item.mentions if m.invented]}
