"""VLFeedback (MMInstruction/VLFeedback, arXiv 2312.10665): answers of several models, rated by GPT-4V in three aspects.

{"id", "prompt", "models", "img_path", "completions": [{"annotations": {aspect: {"Rating": "4"}}, "model",
"response"}]}; `datasets` 2 shows `completions` as a mapping of lists. Silkie pairs every two answers whose mean ratings
differ; so does this, by the mean or by one aspect. Ratings that are no numbers ("N/A") leave an answer out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
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
from veridical.formats.published.types import Answer, Comparison, Format, ReadOptions, Row
from veridical.formats.rows import UnusableError

ASPECTS = ("Helpfulness", "Ethical Considerations", "Visual Faithfulness")


def _matches(row: Row) -> bool:
    return any("annotations" in completion for completion in _completions(row)[:1])


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    images = images_of(row, "img_path", "image", "images")
    prompt = one_user_turn(text_of(row, "prompt"), images)
    rated = [answer for answer in (_answer(each, options.aspect) for each in _completions(row)) if answer is not None]
    name = row_id(row, origin, "id")
    notes = {"aspect": options.aspect} | ({"dataset": part} if (part := name.rpartition("-")[0]) else {})
    for (i, first), (j, second) in combinations(enumerate(rated), 2):
        if first.score != second.score:
            better, worse = sorted((first, second), key=lambda answer: -(answer.score or 0.0))
            yield Comparison(f"{name}/{i}-{j}", images, prompt, (better, worse), notes=notes, record=name)


def _completions(row: Row) -> list[Mapping[str, Any]]:
    completions = listed(row.get("completions"))
    if isinstance(completions, Mapping):
        lists = {name: value for name, value in completions.items() if isinstance(value, list)}
        return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
    return (
        [completion for completion in completions if isinstance(completion, Mapping)]
        if isinstance(completions, list)
        else []
    )


def _answer(completion: Mapping[str, Any], aspect: str) -> Answer | None:
    """The answer with its rating; None where a rating that counts is no number."""
    ratings = completion.get("annotations")
    if not isinstance(ratings, Mapping):
        raise UnusableError("bad-field", "a completion has no `annotations`", "delete the row")
    counted = ASPECTS if aspect == "mean" else (aspect,)
    if absent := next((name for name in counted if name not in ratings), None):
        known = ", ".join(map(str, ratings)) or "none"
        raise UnusableError("unknown-aspect", f"has no rating {absent!r}", f"give --aspect as one of those: {known}")
    given = [number_of((ratings.get(name) or {}).get("Rating")) for name in counted]
    if any(rating is None for rating in given):
        return None
    score = sum(rating for rating in given if rating is not None) / len(given)
    return Answer(refuse_placeholders(text_of(completion, "response")), str(completion.get("model", "")), score)


FORMAT = Format(
    "vlfeedback",
    "pairs",
    frozenset({"id", "prompt", "models", "completions", "img_path", "image", "images"}),
    _matches,
    _read,
    judge="GPT-4V's ratings",
)
