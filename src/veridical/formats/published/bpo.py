"""BPO's set (renjiepi/BPO, arXiv 2403.08730): one annotated answer and negatives from two sources to a prompt.

A JSON list of {"prompt", "image", "completions": [{"score": 1, "response", "type": "gt"}, {"score": 0, ...}]}. The
released trainer pairs every two completions of different score and drops rows with an answer of over 350 words; here a
row is one comparison, and nothing is dropped for its length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from veridical.formats.published.text import images_of, number_of, one_user_turn, refuse_placeholders, row_id, text_of
from veridical.formats.published.types import Answer, Comparison, Format, ReadOptions, Row
from veridical.formats.rows import UnusableError

SOURCES = {"gt": "annotation", "gt-rephrased": "annotation, rephrased", "llm-hal": "injected", "mllm-hal": "own"}


def _matches(row: Row) -> bool:
    completions = row.get("completions")
    return (
        isinstance(completions, list)
        and bool(completions)
        and isinstance(completions[0], Mapping)
        and "score" in completions[0]
    )


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    images = images_of(row, "image", "images")
    answers = sorted((_answer(one) for one in row["completions"]), key=lambda one: -(one.score or 0.0))
    worse = [answer for answer in answers if answer.score != answers[0].score]
    if not worse:
        return  # Nothing is preferred to anything.
    yield Comparison(
        id=row_id(row, origin, "id"),
        images=images,
        prompt=one_user_turn(text_of(row, "prompt"), images),
        answers=(answers[0], *worse),
    )


def _answer(value: Any) -> Answer:
    score = number_of(value.get("score")) if isinstance(value, Mapping) else None
    if score is None:
        raise UnusableError("bad-field", f"a completion holds {str(value)[:60]!r}", "give each a score and a response")
    kind = str(value.get("type", ""))
    return Answer(refuse_placeholders(text_of(value, "response")), SOURCES.get(kind, kind), score)


FORMAT = Format(
    "bpo",
    "pairs",
    frozenset({"id", "prompt", "image", "images", "completions"}),
    _matches,
    _read,
)
