"""Object HalBench's official result (`hall_*.json` of RLAIF-V): sentences with the words that its tagger found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from veridical.errors import UserError
from veridical.protocols.judgement_formats.base import Judgement, Numbered
from veridical.protocols.types import Question

FEWEST_WORDS = 4
"""The scorer sends no shorter answer to a judge: it names nothing."""

_MARK = "words of a saved result: "
"""Stands before what a judge never says, so that it isn't taken for a judge's list."""


def read(entries: Numbered, questions: Sequence[Question]) -> list[Judgement] | None:
    """The words of each sentence, with the caption they were found in. Raises UserError where no judge listed them."""
    parts = {entry.get("question_id"): entry for _, entry in entries if isinstance(entry, dict)}
    sentences = parts.get("sentences", {}).get("text")
    if not isinstance(sentences, list) or "overall_metrics" not in parts:
        return None
    path = entries[0][0].rpartition(", ")[0]
    if not parts["overall_metrics"].get("all_gpt_used_tokens"):
        raise UserError(f"{path}: no judge listed the objects of this result; leave --judgements out.")
    judgements = (_judgement(f"{path}, sentence {number}", one) for number, one in enumerate(sentences, start=1))
    return [judgement for judgement in judgements if judgement is not None]


def _judgement(place: str, sentence: Any) -> Judgement | None:
    whole = isinstance(sentence, dict) and {"image_id", "caption", "words"} <= set(sentence)
    if not whole or not isinstance(sentence["words"], list):
        raise UserError(f"{place}: lacks image_id, caption or the list of words.")
    if len(str(sentence["caption"]).split()) < FEWEST_WORDS:
        return None
    return Judgement(place, str(sentence["image_id"]), _MARK + json.dumps([sentence["caption"], *sentence["words"]]))


def saved_words(judgement: str) -> tuple[str, list[str]] | None:
    """The caption and its words in a judgement out of such a file; None for what a judge said."""
    if not judgement.startswith(_MARK):
        return None
    caption, *words = json.loads(judgement.removeprefix(_MARK))
    return str(caption), [str(word) for word in words]
