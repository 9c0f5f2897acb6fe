"""Results of OpenAI's batch API: `custom_id`, `response.body.choices[0].message.content`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def recognise(row: Mapping[str, Any]) -> bool:
    """Whether the row is a result of a batch."""
    return "custom_id" in row and ("response" in row or "error" in row)


def convert(row: Mapping[str, Any]) -> dict[str, Any]:
    """The reply by the id that the request was given; None where the request failed."""
    body = _object(_object(row.get("response")).get("body"))
    return {"question_id": row["custom_id"], "answer": reply_text(body), "model": body.get("model")}


def reply_text(body: Mapping[str, Any]) -> str | None:
    """The text of a chat completion, None without one."""
    choices = body.get("choices")
    first = _object(choices[0]) if isinstance(choices, list) and choices else {}
    content = _object(first.get("message")).get("content")
    if isinstance(content, list):
        content = "".join(str(_object(part).get("text", "")) for part in content)
    return None if content is None else str(content)


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
