"""BPO's set (renjiepi/BPO, arXiv 2403.08730): one annotated answer and negatives from two sources to a prompt.

A JSON list of {"prompt", "image", "completions": [{"score": 1, "response", "type": "gt"}, {"score": 0, ...}]}. The
released trainer pairs every two completions of different score and drops rows with an answer of over 350 words; here a
row is one comparison, and nothing is dropped for its length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from veridical.formats.published.text import (
    images_of,
    listed,
    number_of,
    one_user_turn,
    refuse_placeholders,
    row_id,
    text_of,
)
from veridical.formats.published.types import LONGEST_PATH, Answer, Comparison, Format, ImageSource, ReadOptions, Row
from veridical.formats.rows import UnusableError

SOURCES = {"gt": "annotation", "gt-rephrased": "annotation, rephrased", "llm-hal": "injected", "mllm-hal": "own"}


def _matches(row: Row) -> bool:
    completions = listed(row.get("completions"))
    first = completions[0] if isinstance(completions, list) and completions else None
    return isinstance(first, Mapping) and "score" in first


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    images = images_of(row, "image", "images")
    answers = sorted(
        (_answer(completion) for completion in listed(row["completions"])), key=lambda answer: -(answer.score or 0.0)
    )
    worse = [answer for answer in answers if answer.score != answers[0].score]
    if not worse:
        return  # Nothing is preferred to anything.
    yield Comparison(
        id=row_id(row, origin, "id"),
        images=images,
        prompt=one_user_turn(text_of(row, "prompt"), images),
        answers=(answers[0], *worse),
        notes={"dataset": part} if (part := _part(images)) else {},
    )


def _part(images: Sequence[ImageSource]) -> str:
    """The set that an image comes from, which is the first folder of its path."""
    paths = [image for image in images if isinstance(image, str) and len(image) < LONGEST_PATH]
    return PurePosixPath(paths[0]).parts[0] if paths and "/" in paths[0].strip("/") else ""


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
    judge="how the answers were made",
)
