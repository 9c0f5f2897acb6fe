"""The model's own language backbone as a writer: it injects errors without seeing the image or its annotations.

BPO's second kind of negatives (arXiv 2403.08730, section 3.2; released code): the text comes from the model's own
prior alone. Both published ways of asking: a description is to be altered; of an answer
to a question it is imagined what it would be for a similar but different image, after six examples. The prompts are our
own wording. Sampled at a temperature of 0.8 with top-p 0.95, up to 1,024 tokens, as released; the reply is the text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Gt, Le

from veridical.bounds import NotNegative, Positive
from veridical.errors import UserError
from veridical.judges.interface import Inject, JudgeError
from veridical.judges.language import ERRORS
from veridical.judges.record_context import question_of
from veridical.records import Message
from veridical.runs import INCIDENTAL

if TYPE_CHECKING:
    from veridical.judges.registry import JudgeContext
    from veridical.vlm.model.loading import Vlm

DESCRIPTION = """Below is a description of an image. Change it: add an object, remove one, or give an object another \
colour, shape, size or position. The changed description must be ordinary and make sense.{more} Reply with the changed \
description only.

Description: {text}
Changed description:"""

QUESTION = """You get a question about an image and its answer. Imagine a similar but different image, with more or \
fewer objects or with other attributes, and answer the question for that image.{more} Reply with the new answer only.

Question: Describe the image.
Answer: An old woman is feeding pigeons in a square, and people sit on benches behind her.
New answer: A boy is chasing pigeons in a square, and the benches behind him are empty.

Question: What colour is the umbrella?
Answer: The umbrella is black.
New answer: The umbrella is red.

Question: What is to the left of the girl?
Answer: A bicycle is to the left of the girl.
New answer: A suitcase is to the left of the girl.

Question: How many boats are on the lake?
Answer: There are 4 boats on the lake.
New answer: There are only 2 boats on the lake.

Question: How many candles are on the cake?
Answer: 6.
New answer: 5.

Question: What does the ticket cost?
Answer: The ticket costs 12 dollars.
New answer: The ticket costs 20 dollars.

Question: {question}
Answer: {text}
New answer:"""

PROMPTS: Mapping[str, str] = MappingProxyType({"description": DESCRIPTION, "question": QUESTION})


@dataclass(frozen=True)
class Backbone:
    """A writer that is the examined model without an image."""

    model: Callable[[], Vlm] = field(repr=False)
    temperature: float = 0.8
    top_p: float = 0.95
    max_tokens: int = 1024
    batch_size: int = 8
    name: str = "backbone"

    def inject(self, requests: Sequence[Inject]) -> list[str | JudgeError | None]:
        """The text as the model alters it; None where it says the same or was cut off."""
        written: list[str | JudgeError | None] = []
        for start in range(0, len(requests), self.batch_size):
            written += self._batch(requests[start : start + self.batch_size])
        return written

    def _batch(self, requests: Sequence[Inject]) -> list[str | JudgeError | None]:
        try:
            return list(self._together(requests))
        except UserError as error:
            if len(requests) == 1:
                return [
                    JudgeError(f"{self.name}: {error}", "judge-refused", "shorten the text, or take another writer")
                ]
        return [text for request in requests for text in self._batch([request])]

    def _together(self, requests: Sequence[Inject]) -> list[str | None]:
        from veridical.vlm.generation.generate import generate
        from veridical.vlm.generation.params import Branch, SamplingParams
        from veridical.vlm.inputs.context import Context
        from veridical.vlm.prefix.encode import encode

        vlm = self.model()
        contexts = [Context((), (Message("user", prompt(r)),), key=("backbone", *r.key)) for r in requests]
        sampling = SamplingParams(self.max_tokens, self.temperature, self.top_p)
        branches = [Branch(place, ("backbone", *request.key)) for place, request in enumerate(requests)]
        sampled = generate(vlm, encode(vlm, contexts), branches, sampling)
        texts = [sample.text.strip() if sample.finished else "" for sample in sampled]
        return [
            text if text and text != request.text.strip() else None
            for text, request in zip(texts, requests, strict=True)
        ]


def prompt(request: Inject) -> str:
    """What the model is asked."""
    more = "" if request.kind == "any" else f" Make only this kind of change: {ERRORS[request.kind]}."
    if request.count > 1:
        more += f" Make {request.count} changes."
    return PROMPTS[request.mode].format(more=more, text=request.text, question=question_of(request.record.prompt))


@dataclass(frozen=True)
class BackboneSettings:
    """Let the model itself write, without an image."""

    name: Literal["backbone"] = "backbone"
    """Which writer: backbone is the model's own language part, which injects errors and sees neither image nor
    annotations (BPO)."""
    temperature: NotNegative = 0.8
    """Sampling temperature; 0.8 in BPO's released code."""
    top_p: Annotated[float, Gt(0), Le(1)] = 0.95
    """Sample from the likeliest tokens that reach this probability; 0.95 in BPO's released code."""
    max_tokens: Positive = 1024
    """Longest text in tokens."""
    batch_size: Positive = field(default=8, metadata=INCIDENTAL)
    """Texts written at a time."""

    def open(self, context: JudgeContext) -> Backbone:
        """The writer. Raises UserError where no model is examined."""
        if context.model is None:
            raise UserError("writer.name backbone: there is no model here to write.")
        return Backbone(context.model, self.temperature, self.top_p, self.max_tokens, self.batch_size)
