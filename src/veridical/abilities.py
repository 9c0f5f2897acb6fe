"""What a construction, a view or a method of decoding may need of whoever generates: the local model can all of it."""

from __future__ import annotations

from enum import StrEnum


class Ability(StrEnum):
    """One thing that a generator is able to do, in words that end the sentence "it can't ..."."""

    TEXTS = "answer about images"
    CONTINUE = "continue a given text"
    STOP = "stop after a given text and keep it"
    TOP_K = "sample from the k likeliest tokens"
    SCORES = "give the log-probabilities of a given text"
    FIRST_TOKENS = "give the probabilities of the first token"
    UNCLIPPED_PIXELS = "show pixels beyond [0, 1], as noise on normalised pixels has them"
    IMAGE_TOKENS = "hide or change image tokens"
    EMBED = "embed images, by which similar ones are retrieved"
    LOGITS = "change every token's logits, as contrastive decoding does"


ALL = frozenset(Ability)
