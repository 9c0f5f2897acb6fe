"""Answers on disk that compete with a model's own: those of other models, or VLFeedback's pool.

A file is JSON, one object a line or a list of them. A row names the record by `id` (or its image by `image`) and holds
an answer in `text`, `answer`, `response` or `caption`, with `model` beside it; or several as VLFeedback has them, in
`completions` with `response` and `model` each.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from veridical.constructions.protocol import Answer
from veridical.errors import UserError
from veridical.records import Record

_TEXTS = ("text", "answer", "response", "caption")
_NAMES = ("id", "record_id", "question_id", "image", "img_path", "image_id")
_MODEL = "a model"


def pooled(files: tuple[Path, ...], record: Record) -> list[tuple[Answer, str]]:
    """The answers about a record, each with the model that gave it. Raises UserError for a file that holds none."""
    pool = _read(files) if files else {}
    names = (record.id, *(image.path.name for image in record.images), *(image.path.stem for image in record.images))
    answers = next((pool[name] for name in names if name in pool), [])
    return [(Answer(text, finished=True), source) for text, source in answers]


@functools.cache
def _read(files: tuple[Path, ...]) -> Mapping[str, list[tuple[str, str]]]:
    pool: dict[str, list[tuple[str, str]]] = {}
    for file in files:
        read = 0
        for row in _rows(file):
            name = next((str(row[key]) for key in _NAMES if row.get(key) is not None), "")
            answers = list(_answers(row, file.stem))
            if not name or not answers:
                raise UserError(
                    f"{file}: a row has {', '.join(sorted(row)) or 'nothing'}; give each an id or image, and a text "
                    "(or completions with a response each)."
                )
            for key in dict.fromkeys((name, Path(name).name, Path(name).stem)):
                pool.setdefault(key, []).extend(answers)
            read += 1
        if not read:
            raise UserError(f"{file}: holds no answers; it is JSON with an object a line, such as"
                            ' {"id": "1", "text": "A dog.", "model": "m"}.')  # fmt: skip
    return pool


def _rows(file: Path) -> Iterator[Mapping[str, Any]]:
    try:
        content = file.expanduser().read_text(encoding="utf-8")
        rows = json.loads(content) if content.lstrip().startswith("[") else map(json.loads, content.splitlines())
        for row in rows:
            if not isinstance(row, dict):
                raise UserError(f"{file}: a row is a {type(row).__name__}, not an object.")
            yield row
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: can't be read as answers ({error}); it is JSON with an object a line.") from error


def _answers(row: Mapping[str, Any], source: str) -> Iterator[tuple[str, str]]:
    completions = row.get("completions")
    several: Sequence[Any] = completions if isinstance(completions, list) else [row]
    for completion in several:
        text = next((completion[key] for key in _TEXTS if isinstance(completion.get(key), str)), None)
        if text is not None:
            yield text, f"answer of {completion.get('model') or source or _MODEL}"
