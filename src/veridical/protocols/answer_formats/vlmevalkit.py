"""VLMEvalKit's result sheets (.xlsx, .tsv, .csv): `index`, `question`, `answer` (the true one), `prediction`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

TRUTH = frozenset({"answer", "extracted", "score", "hit", "log"})
"""Columns that hold the true answer or a score. They must not be read as the model's answer."""


def recognise(row: Mapping[str, Any]) -> bool:
    """Whether the row is one of a result sheet."""
    return "index" in row and "prediction" in row


def convert(row: Mapping[str, Any]) -> dict[str, Any]:
    """The prediction as the answer; `index` counts the sheet's rows, so it is no question's id."""
    kept = {name: value for name, value in row.items() if name not in TRUTH and name not in ("prediction", "index")}
    if kept.get("image_path") and not kept.get("image"):
        kept["image"] = PurePath(str(kept["image_path"])).name
    if isinstance(row["index"], str) and not row["index"].isdecimal():
        kept.setdefault("id", row["index"])
    return {**kept, "answer": row["prediction"]}
