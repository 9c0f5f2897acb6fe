"""HA-DPO's sets (juliozhao/hadpo-data, arXiv 2311.16839): descriptions and yes/no questions about Visual Genome images.

`desc_data.json` is {image id: {"chosen": [...], "rejected": [...]}} for LLaVA, a list with `image_id` for MiniGPT-4
and InstructBLIP: several rewritings of each side, of which the released loader draws one each, and no question, which
it draws from four. `pope_data.json` holds `question`, `chosen` and `reject` (or `rejected`); rows that the model had
right (`correct` is true) are no comparison.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from veridical.formats.published.text import notes_of, one_user_turn, refuse_placeholders, text_of
from veridical.formats.published.types import Answer, Comparison, Format, ReadOptions, Row
from veridical.formats.rows import UnusableError

QUESTIONS = (
    "Describe this image in detail.",
    "Take a look at this image and describe what you notice.",
    "Please provide a detailed description of the picture.",
    "Could you describe the contents of this image for me?",
)
"""What the released loader draws a description's question from."""


def _matches(row: Row) -> bool:
    if "image_id" not in row:
        return False
    asked = (
        {"question", "answer", "chosen", "rejected"} <= row.keys() and "image" not in row and "image_path" not in row
    )
    return isinstance(row.get("chosen"), list) or "reject" in row or "correct" in row or asked


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    image = str(row.get("image_id"))
    if not image.isdigit():
        raise UnusableError("bad-field", f"`image_id` is {image[:40]!r}", "give Visual Genome's number of the image")
    images = (f"{image}.jpg",)
    if "question" in row:
        if row.get("correct") is True:
            return
        prompt = one_user_turn(text_of(row, "question"), images)
        chosen, rejected = text_of(row, "chosen"), text_of(row, "reject", "rejected")
        name = f"{image}/{origin}"
    else:
        draw = random.Random(f"{options.seed}/{image}")
        prompt = one_user_turn(draw.choice(QUESTIONS), images)
        chosen, rejected = _one(row, "chosen", draw), _one(row, "rejected", draw)
        name = image
    yield Comparison(
        name,
        images,
        prompt,
        (Answer(refuse_placeholders(chosen), "own, corrected"), Answer(refuse_placeholders(rejected), "own")),
        notes=notes_of(row, "answer"),
        record=image,
    )


def _one(row: Row, side: str, draw: random.Random) -> str:
    texts: Any = row.get(side)
    if (
        not isinstance(texts, Sequence)
        or isinstance(texts, str)
        or not all(isinstance(text, str) and text for text in texts)
        or not texts
    ):
        raise UnusableError("bad-field", f"`{side}` is no list of texts", f"give `{side}` as a list of texts")
    return str(draw.choice(texts)).strip()


FORMAT = Format(
    "ha-dpo",
    "pairs",
    frozenset({"image_id", "chosen", "rejected", "reject", "question", "answer", "correct"}),
    _matches,
    _read,
    judge="GPT-4 with annotations",
)
