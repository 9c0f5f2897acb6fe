"""ms-swift's inference results: `response`, beside the `messages` and `images` of the request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def recognise(row: Mapping[str, Any]) -> bool:
    """Whether the row is a result of `swift infer`."""
    return "response" in row and isinstance(row.get("messages"), list)


def convert(row: Mapping[str, Any]) -> dict[str, Any]:
    """The response with the last question asked and the image's name; fields of the user's own stay."""
    kept = {name: value for name, value in row.items() if name not in ("messages", "images", "labels", "logprobs")}
    asked = [_text(m.get("content")) for m in row["messages"] if isinstance(m, dict) and m.get("role") == "user"]
    if asked:
        kept.setdefault("question", asked[-1].replace("<image>", "").strip())
    image = _image(row.get("images"))
    if image:
        kept.setdefault("image", image)
    return {**kept, "answer": row["response"]}


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content)


def _image(images: Any) -> str | None:
    first = images[0] if isinstance(images, list) and images else images
    path = first.get("path") if isinstance(first, dict) else first
    return path if isinstance(path, str) and not path.startswith("data:") else None
