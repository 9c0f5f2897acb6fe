"""veridical's own pairs, outside a run folder: a shard or what `veridical data export` wrote, with all that they say.

TRL's columns `images`, `prompt`, `chosen`, `rejected`, and beside them where each pair came from and what is wide about
it. In JSON lines, cells that parquet writes as JSON text may be objects.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from veridical.formats.published.text import conversation, images_of, refuse_placeholders, row_id, text_of
from veridical.formats.published.types import Answer, Comparison, Format, Made, ReadOptions, Row
from veridical.formats.rows import UnusableError
from veridical.records import FurtherAnswer, ImageFile, Message, Pair, Provenance, Spans

Cells: TypeAlias = Callable[[Sequence[ImageFile] | None], list[Any] | None]
TEXTS = ("construction", "variant", "model", "judge", "chosen_source", "rejected_source")
WIDE = frozenset({"others", "rejected_images", "weights", "context", "spans", "open_ended", "provenance"})
_COLUMNS = frozenset(
    {
        "id", "record_id", "images", "image_sha256", "prompt", "chosen", "rejected", *TEXTS, "parameters", "scores",
        "seed", "attempts", "chosen_spans", "rejected_spans", "open_ended", "context", "weights", "rejected_images",
        "rejected_image_sha256", "others",
    }
)  # fmt: skip


def _matches(row: Row) -> bool:
    return {"record_id", "construction", "variant", "chosen", "rejected"} <= row.keys()


def _read(row: Row, origin: str, options: ReadOptions) -> Iterator[Comparison]:
    name = row_id(row, origin, "id")
    made = Made(name, _text(row, "record_id"), _provenance(row), _spans(row), bool(row.get("open_ended")))
    first, second = row.get("weights") or (None, None)
    own = images_of(row, "rejected_images") or None
    yield Comparison(
        id=name,
        images=images_of(row, "images"),
        prompt=conversation(row.get("prompt")),
        answers=(
            Answer(_side(row, "chosen"), weight=first),
            Answer(_side(row, "rejected"), weight=second, images=own),
            *map(_other, row.get("others") or ()),
        ),
        context=str(row.get("context") or ""),
        made=made,
    )


def _side(row: Row, name: str) -> str:
    (message,) = conversation(row[name])
    return refuse_placeholders(message.text)


def _text(row: Mapping[str, Any], name: str) -> str:
    """A text as it is, with blanks at its ends. Raises UnusableError."""
    text_of(row, name)
    return str(row[name])


def _other(cell: Mapping[str, Any]) -> Answer:
    images = images_of(cell, "images") or None
    text, source = _text(cell, "text"), str(cell.get("source") or "")
    return Answer(text, source, cell.get("score"), images, cell.get("weight"), _spans(cell))


def _provenance(row: Row) -> Provenance:
    return Provenance(
        **{name: str(row.get(name) or "") for name in TEXTS},
        parameters=_object(row.get("parameters")),
        scores=_object(row.get("scores")),
        seed=int(row.get("seed") or 0),
        attempts=int(row.get("attempts") or 1),
    )


def _object(value: Any) -> Mapping[str, Any]:
    content = json.loads(value) if isinstance(value, str) else value
    if content is not None and not isinstance(content, Mapping):
        raise UnusableError("bad-field", f"{str(value)[:40]!r} is no JSON object", "write it as an object")
    return content or {}


def _spans(row: Row) -> Spans | None:
    if row.get("chosen_spans") is None or row.get("rejected_spans") is None:
        return None
    chosen, rejected = (tuple((int(a), int(b)) for a, b in row[f"{side}_spans"]) for side in ("chosen", "rejected"))
    return Spans(chosen, rejected)


def pair_row(pair: Pair, cells: Cells) -> dict[str, Any]:
    """A pair as a row of a shard. `cells` writes the images of a column, or None where there are none of its own."""
    made = pair.provenance
    return {
        "images": cells(pair.images),
        "prompt": [_message(message) for message in pair.prompt],
        "chosen": [_message(Message("assistant", pair.chosen))],
        "rejected": [_message(Message("assistant", pair.rejected))],
        "id": pair.id,
        "record_id": pair.record_id,
        "image_sha256": _hashes(pair.images),
        **{name: getattr(made, name) for name in TEXTS},
        "parameters": json.dumps(dict(made.parameters), ensure_ascii=False),
        "scores": json.dumps(dict(made.scores)),
        "seed": made.seed,
        "attempts": made.attempts,
        **_span_cells(pair.spans),
        "open_ended": pair.open_ended,
        "context": pair.context or None,
        "weights": None if pair.weights is None else list(pair.weights),
        "rejected_images": cells(pair.rejected_images),
        "rejected_image_sha256": _hashes(pair.rejected_images),
        "others": [_other_row(other, cells) for other in pair.others] or None,
    }


def _other_row(other: FurtherAnswer, cells: Cells) -> dict[str, Any]:
    row = {"text": other.text, "source": other.source, "score": other.score, "weight": other.weight}
    return {**row, "images": cells(other.images), "image_sha256": _hashes(other.images), **_span_cells(other.spans)}


def _span_cells(spans: Spans | None) -> dict[str, list[list[int]] | None]:
    return {
        "chosen_spans": None if spans is None else [list(span) for span in spans.chosen],
        "rejected_spans": None if spans is None else [list(span) for span in spans.rejected],
    }


def _hashes(images: Sequence[ImageFile] | None) -> list[str] | None:
    return None if images is None else [image.sha256 for image in images]


def _write(pair: Pair, images: Sequence[str]) -> dict[str, Any]:
    """A row whose images are names: the pair's, then the rejected side's own, then those of each further answer."""
    names = iter(images)
    return pair_row(pair, lambda column: None if column is None else [next(names) for _ in column])


def _message(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.text}


FORMAT = Format(
    "veridical",
    "pairs",
    _COLUMNS,
    _matches,
    _read,
    _write,
    WIDE,
)
