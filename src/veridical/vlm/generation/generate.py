"""Texts sampled from contexts that were encoded once, each with its own random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from veridical.errors import UserError
from veridical.vlm.generation.contrast import Decoding
from veridical.vlm.prefix.encode import Prefix

if TYPE_CHECKING:
    from veridical.vlm.model.loading import Vlm


@dataclass(frozen=True)
class SamplingParams:
    """How answers are drawn from the model."""

    max_new_tokens: int = 256
    """An answer is cut off after this many tokens, end-of-turn included."""
    temperature: float = 1.0
    """Divides the logits before sampling; 0 always takes the likeliest token."""
    top_p: float = 1.0
    """Sample only from the likeliest tokens that together reach this probability; 1 keeps all."""
    top_k: int = 0
    """Sample only from this many likeliest tokens; 0 keeps all."""
    stop: tuple[str, ...] = ()
    """End an answer right after any of these texts appears in it; the text found stays in the answer."""
    decoding: Decoding | None = None
    """How the next token's logits are made, where not by the model alone; see `veridical.decoding`."""

    def __post_init__(self) -> None:
        wrong = {
            f"max_new_tokens is {self.max_new_tokens}; it must be at least 1": self.max_new_tokens < 1,
            f"temperature is {self.temperature}; it must be at least 0": not self.temperature >= 0,
            f"top_p is {self.top_p}; it must be above 0 and at most 1": not 0 < self.top_p <= 1,
            f"top_k is {self.top_k}; it must be at least 0": self.top_k < 0,
        }
        if found := [message for message, is_so in wrong.items() if is_so]:
            raise UserError(f"{'; '.join(found)}.")


@dataclass(frozen=True)
class Branch:
    """One text to sample: which context it answers, the key of its random numbers, and the text it goes on
    from.
    """

    context: int
    key: tuple[str | int, ...] = ()
    after: str = ""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A sampled text, without what it goes on from and without the end of its turn.

    `ended` says what ended it: the model, by ending its turn; one of the `stop` texts; or the limit on its
    length, which cut it off. `tokens` counts the new tokens before the end of the turn.
    """

    text: str
    ended: Literal["turn", "stop", "length"]
    tokens: int

    @property
    def finished(self) -> bool:
        """Whether the text is whole, rather than cut off."""
        return self.ended != "length"


def generate(vlm: Vlm, prefix: Prefix, branches: Sequence[Branch], sampling: SamplingParams) -> list[Sampled]:
    """One text for each branch.

    A text depends on its branch's key and context, never on what else is in the batch (floating-point ties
    aside). At temperature 0 it is what `generate` gives with `do_sample=False` and no further logits
    processors.
    """
    import torch

    from veridical.vlm.generation import decode

    if not branches:
        return []
    if wrong := [branch for branch in branches if not 0 <= branch.context < len(prefix)]:
        raise ValueError(f"{len(prefix)} contexts were encoded, so there is no context {wrong[0].context}")
    with torch.inference_mode(), decode.evaluating(vlm.model):
        return decode.decode(vlm, prefix, branches, sampling)
