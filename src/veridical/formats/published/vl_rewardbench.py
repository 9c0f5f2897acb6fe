"""VL-RewardBench (MMInstruction/VL-RewardBench, arXiv 2411.17451): two responses and which one people rank first.

{"id", "query", "response": [a, b], "human_ranking": [0, 1], "image" | "image_path", "query_source", ...}: the better
response has rank 0. The benchmark's three groups go by the set that a row comes from, which its image or id names.
"""

from __future__ import annotations

from collections.abc import Iterator

from veridical.formats.published.text import images_of, notes_of, one_user_turn, refuse_placeholders, row_id, text_of
from veridical.formats.published.types import Answer, Comparison, Format, ReadOptions, Row
from veridical.formats.rows import UnusableError

_GROUPS = {
    "vlfeedback": "general",
    "wildvision-battle": "general",
    "povid": "hallucination",
    "rlhf-v": "hallucination",
    "rlaif-v": "hallucination",
    "reasoning_tasks": "reasoning",
}
_BEGINNINGS = {
    "rlaif": "rlaif-v",
    "rlhf": "rlhf-v",
    "hallucination_pair": "povid",
    "wildvision": "wildvision-battle",
    "mathverse": "reasoning_tasks",
    "mmmu": "reasoning_tasks",
}
"""How ids begin, where a row brings its image instead of the image's path."""
_NOTES = ("query_source", "judge", "human_error_analysis", "ground_truth")


def _matches(row: Row) -> bool:
    return {"query", "response", "human_ranking"} <= row.keys()


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    texts, ranks = row.get("response"), row.get("human_ranking")
    if not isinstance(texts, list | tuple) or len(texts) != 2 or not all(isinstance(text, str) for text in texts):
        raise UnusableError("bad-field", "`response` isn't two texts", "give two responses")
    if not isinstance(ranks, list | tuple) or sorted(ranks) != [0, 1]:
        raise UnusableError("bad-field", "`human_ranking` isn't 0 and 1", "give the better response rank 0")
    better = list(ranks).index(0)
    models = row.get("models")
    models = models if isinstance(models, list | tuple) else ()
    sources = [str(models[place]) if len(models) == 2 else "" for place in (better, 1 - better)]
    images = images_of(row, "image", "image_path")
    name = row_id(row, origin, "id")
    dataset = _dataset(row)
    yield Comparison(
        id=name,
        images=images,
        prompt=one_user_turn(text_of(row, "query"), images),
        answers=(
            Answer(refuse_placeholders(texts[better].strip()), sources[0]),
            Answer(refuse_placeholders(texts[1 - better].strip()), sources[1]),
        ),
        notes={**notes_of(row, *_NOTES), "dataset": dataset, "group": _GROUPS[dataset]},
    )


def _dataset(row: Row) -> str:
    """The set that a row comes from; VLFeedback's ids are those of its own sources."""
    folders = str(row.get("image_path") or "").split("/")[:-1]
    if named := next((folder for folder in folders if folder in _GROUPS), None):
        return named
    beginning = str(row.get("id", "")).lower().replace("-", "_").replace("__", "_")
    return next((name for start, name in _BEGINNINGS.items() if beginning.startswith(start)), "vlfeedback")


FORMAT = Format(
    "vl-rewardbench",
    "pairs",
    frozenset(
        {"id", "query", "response", "human_ranking", "image", "image_path", "models", "rationale", "meta", *_NOTES}
    ),
    _matches,
    _read,
    judge="people",
)
