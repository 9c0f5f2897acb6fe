"""Rewrite a text by the model: it gets the beginnings of the sentences and completes them (BDHS, arXiv 2407.02477,
Algorithm 1)."""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from veridical.abilities import Ability
from veridical.constructions.protocol import Answer, Request, Sample
from veridical.judges.sentences import sentences
from veridical.judges.tokens import FULL_STOPS, pieces
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.inputs.context import Context
from veridical.vlm.seeds import generator

if TYPE_CHECKING:
    import numpy

GUIDED = frozenset({Ability.TEXTS, Ability.CONTINUE, Ability.STOP})
"""What `complete` needs of a generator."""
_OPPOSITE = {"Yes": "No", "yes": "no", "No": "Yes", "no": "yes"}


def complete(context: Context, text: str, sampling: SamplingParams) -> Generator[Request, Any, Answer]:
    """Cut each sentence of a text at random and complete it up to the first full stop, all at once, each after the true
    sentences before it. The context's key seeds cuts and completions."""
    draws = generator("cuts", context.key)
    starts, spaces, before = [], [], ""
    for sentence in sentences(text):
        beginning = _beginning(_swapped(sentence, draws), draws)
        starts.append(((before + beginning).rstrip(), beginning))
        spaces.append(sentence[len(sentence.rstrip()) :])
        before += sentence
    completions: list[Answer] = yield Sample(
        context,
        keys=tuple((*context.key, number) for number in range(len(starts))),
        sampling=replace(sampling, stop=FULL_STOPS),
        after=tuple(after for after, _ in starts),
    )
    pieces = [
        (beginning.rstrip() + completion.text).strip() + space
        for (_, beginning), completion, space in zip(starts, completions, spaces, strict=True)
    ]
    return Answer("".join(pieces).strip(), all(completion.finished for completion in completions))


def free(context: Context, sampling: SamplingParams) -> Generator[Request, Any, Answer]:
    """One answer of the model's own. The context's key seeds it."""
    answers: list[Answer] = yield Sample(context, (context.key,), sampling)
    return answers[0]


def _swapped(sentence: str, draws: numpy.random.Generator) -> str:
    """Every second sentence, by chance, that says yes or no first says the other."""
    said = re.match(r"\s*(Yes|yes|No|no)\b", sentence)
    if said is None or draws.random() < 0.5:
        return sentence
    return sentence[: said.start(1)] + _OPPOSITE[said[1]] + sentence[said.end(1) :]


def _beginning(sentence: str, draws: numpy.random.Generator) -> str:
    """The sentence up to before one of its words and marks, drawn evenly: at least that one is left to say."""
    places = [match.start() for match in pieces(sentence)] or [0]
    return sentence[: places[int(draws.integers(len(places)))]]
