"""lmms-eval's `*_samples_*.jsonl`: `doc_id`, `target`, `filtered_resps`, and `doc` or, in newer versions, `input`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

IDENTITY = (
    "question_id", "questionId", "id", "image_id", "imageId", "image", "image_source", "question", "category",
    "subcategory", "set_id", "figure_id", "visual_input",
)  # fmt: skip
"""What of a document says which question it is. Its other fields may hold the true answer."""


def recognise(row: Mapping[str, Any]) -> bool:
    """Whether the row is a logged sample."""
    return "doc_id" in row and ("filtered_resps" in row or "resps" in row)


def convert(row: Mapping[str, Any]) -> dict[str, Any]:
    """The answer with what the document, the metrics or the prompt say about its question."""
    document = row.get("doc")
    if not isinstance(document, dict):
        document = _from_metrics(row)
    kept = {name: document[name] for name in IDENTITY if document.get(name) is not None}
    if "question" not in kept and isinstance(row.get("input"), str):
        kept["question"] = row["input"]
    return {**kept, "doc_id": row["doc_id"], "answer": _first(row.get("filtered_resps", row.get("resps")))}


def order(row: Mapping[str, Any]) -> int:
    """The place of the document in the data set; several processes log their samples one after another."""
    place = row["doc_id"]
    return place if isinstance(place, int) else int(place) if str(place).isdecimal() else 0


def _from_metrics(row: Mapping[str, Any]) -> dict[str, Any]:
    """Tasks log the question's id inside their metrics, such as `pope_accuracy`."""
    metrics: dict[str, Any] = {}
    for value in row.values():
        if isinstance(value, dict):
            metrics |= {name: value[name] for name in IDENTITY if name in value}
    return metrics


def _first(answer: Any) -> Any:
    while isinstance(answer, list) and answer:
        answer = answer[0]
    return None if isinstance(answer, list) else answer
