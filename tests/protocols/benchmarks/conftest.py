"""Small files in the official forms, and `veridical score` on them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from veridical.cli import main


@pytest.fixture
def write(tmp_path):
    """Write a value as JSON, or rows as JSON lines (.jsonl, and POPE's .json, which holds lines); texts as they are."""

    def write(name: str, content: Any) -> Path:
        path = tmp_path / name
        if isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        elif name.endswith(".jsonl") or name.startswith("coco_pope"):
            path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
        else:
            path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


@pytest.fixture
def score(capsys):
    """Run `veridical score` with --json and return what it prints."""

    def score(*arguments: str | Path) -> dict[str, Any]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["score", *map(str, arguments), "--json"])
        shown = capsys.readouterr()
        assert ended.value.code == 0, shown.err
        return json.loads(shown.out)

    return score


@pytest.fixture
def refused(capsys):
    """Run `veridical score`, which must fail, and return the line that it says."""

    def refused(*arguments: str | Path) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["score", *map(str, arguments)])
        assert ended.value.code == 2
        return capsys.readouterr().err

    return refused


def column(result: Mapping[str, Any], name: str) -> list[Any]:
    """One field of all items."""
    return [item[name] for item in result["items"]]


def rows(texts: Sequence[str], field: str = "answer") -> list[dict[str, Any]]:
    """Answers by number, from 1."""
    return [{"question_id": number, field: text} for number, text in enumerate(texts, start=1)]
