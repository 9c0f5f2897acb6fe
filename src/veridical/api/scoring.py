"""`veridical.score`: score answers that exist already."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from veridical.api.results import Scores
from veridical.api.settings import checked_settings, fields_of


def score(protocol: str, **given: Any) -> Scores:
    """Score answers that are there already, by a benchmark's official rules.

    Args:
        protocol: its name (`veridical list protocols`), or the place of one's own.
        given: its settings. What names files may be given as what is in them: a mapping from ids to answers or to
            objects, or a sequence of rows. Or `questions` are `veridical.protocols.types.Question`s and `answers` a
            mapping from their ids to texts: then they are counted as they are, without files.

    Raises:
        UserError: answers that don't belong to the questions, and whatever can't be read.
    """
    from veridical.protocols.benchmarks.registry import benchmark
    from veridical.protocols.in_memory import are_questions, count_answers
    from veridical.protocols.score import config_type, result_of

    fields = {field.name for field in fields_of(benchmark(protocol).Settings)}
    if are_questions(given.get("questions")):
        return Scores(count_answers(benchmark(protocol), **given))
    with tempfile.TemporaryDirectory(prefix="veridical-score-") as work:
        settings = {name: _as_file(name, value, Path(work)) for name, value in given.items()}
        kind = config_type({"protocol": protocol})
        many = {field.name for field in fields_of(kind) if "tuple" in str(field.type)}
        for name, value in settings.items():
            if name in fields and name in many and not isinstance(value, tuple | list):
                settings[name] = (value,)
        return Scores(result_of(checked_settings(kind, settings)))


def _as_file(name: str, value: Any, folder: Path) -> Any:
    """What is given in memory as a file that the benchmark reads; anything else as it is."""
    if isinstance(value, Mapping):
        texts = bool(value) and all(isinstance(item, str) for item in value.values())
        content: Any = [_row(name, key, text) for key, text in value.items()] if texts else dict(value)
    elif isinstance(value, Sequence) and value and all(isinstance(item, Mapping) for item in value):
        content = [dict(row) for row in value]
    else:
        return Path(value) if isinstance(value, str) and Path(value).is_file() else value
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def _row(name: str, key: Any, text: str) -> dict[str, Any]:
    return {"image_id": key, "caption": text} if name == "captions" else {"question_id": key, "text": text}
