"""What was tried with which family of models: a table that the tests write from what passes (`support.json`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

COLUMNS: Mapping[str, str] = {
    "loads": "a saved model and its processor load again, without remote code",
    "scores": "log-probabilities equal those of transformers' own forward, and show the image at every token",
    "shares": "image and prompt are encoded once for all answers: the same scores and the same whole gradient, "
    "under gradient checkpointing too",
    "samples": "greedy text is that of `generate`",
    "masks_image_tokens": "image tokens can be hidden from every layer (BDHS)",
    "trains_lora": "one step of a low-rank adapter moves a pair the right way; off, it is the base",
    "answer_only_adapter": "an adapter that acts on answers only equals PEFT's activated LoRA on whole rows",
}


@dataclass(frozen=True)
class Family:
    """What passed for one family: `name` as the table calls it, `model_type` as its config does; `note` says why
    something didn't.
    """

    name: str
    model_type: str
    passed: Mapping[str, bool]
    note: str


@dataclass(frozen=True)
class Support:
    """The whole table, and the versions it was made with."""

    transformers: str
    families: tuple[Family, ...]


@lru_cache
def support() -> Support:
    """The table in the package."""
    text = resources.files(__package__).joinpath("support.json").read_text(encoding="utf-8")
    table = json.loads(text)
    families = (
        Family(name, row["model_type"], {column: row.get(column, False) for column in COLUMNS}, row.get("note", ""))
        for name, row in sorted(table["families"].items())
    )
    return Support(table["transformers"], tuple(families))


def refusal(model_type: str, column: str) -> str:
    """Why models of a type can't do what `column` says, by the table's notes; empty where some of them can, and for
    types that it doesn't list.
    """
    rows = [family for family in support().families if family.model_type == model_type]
    if not rows or any(family.passed[column] for family in rows):
        return ""
    return f"in tests of {model_type} models it failed ({'; '.join(family.note for family in rows)})"


def shared_families() -> frozenset[str]:
    """Model types whose sharing the tests compare with separate forwards; any other is probed when it is loaded."""
    unshared = {family.model_type for family in support().families if not family.passed["shares"]}
    return frozenset(family.model_type for family in support().families) - unshared
