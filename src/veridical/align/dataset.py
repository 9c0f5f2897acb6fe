"""Examples on disk, so that memory does not grow with their number."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, overload

import numpy
import pyarrow  # type: ignore[import-untyped]
from numpy.typing import NDArray

from veridical.align.types import Answer, Example
from veridical.files import whole
from veridical.records import ImageFile, Message

ROWS = 1024
"""Examples in one batch of the file."""


class ArrowDataset(Sequence[Example]):
    """The examples of an Arrow file. It is mapped into memory, and the system takes that back when it is short."""

    def __init__(self, path: Path) -> None:
        self._path = path
        reader = pyarrow.ipc.open_file(pyarrow.memory_map(str(path)))
        self._batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        self._length: int = sum(batch.num_rows for batch in self._batches)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Example]: ...
    def __getitem__(self, place: int | slice) -> Example | Sequence[Example]:
        if isinstance(place, slice):
            return Subset(self, range(self._length)[place])
        batch, row = divmod(range(self._length)[place], ROWS)
        return _example(self._batches[batch].slice(row, 1).to_pylist()[0])

    def __iter__(self) -> Iterator[Example]:
        return (_example(row) for batch in self._batches for row in batch.to_pylist())

    def __reduce__(self) -> tuple[type[ArrowDataset], tuple[Path]]:
        return ArrowDataset, (self._path,)


@dataclass(frozen=True)
class Subset(Sequence[Example]):
    """Some of the examples, by their places."""

    examples: Sequence[Example]
    places: Sequence[int] | NDArray[numpy.int64]

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> Subset: ...
    def __getitem__(self, place: int | slice) -> Example | Subset:
        if isinstance(place, slice):
            return Subset(self.examples, self.places[place])
        return self.examples[int(self.places[place])]


def store(examples: Iterable[Example], path: Path) -> ArrowDataset:
    """Write examples to `path`, whole, never holding more than some of them."""
    schema, rows = _schema(), map(_row, examples)
    with whole(path, lasting=False) as partial, pyarrow.ipc.new_file(str(partial), schema) as file:
        while some := list(itertools.islice(rows, ROWS)):
            file.write_batch(pyarrow.RecordBatch.from_pylist(some, schema=schema))
    return ArrowDataset(path)


def _schema() -> pyarrow.Schema:
    text = pyarrow.string()
    images = pyarrow.list_(pyarrow.struct({"path": text, "sha256": text}))
    answer = pyarrow.struct(
        {
            "text": text,
            "cut": pyarrow.bool_(),
            "edits": pyarrow.list_(pyarrow.int32()),
            "skip": pyarrow.int32(),
            "images": images,
            "weight": pyarrow.float64(),
        }
    )
    return pyarrow.schema(
        {
            "id": text,
            "images": images,
            "prompt": pyarrow.list_(pyarrow.struct({"role": text, "text": text})),
            "chosen": answer,
            "rejected": answer,
            "scores": pyarrow.map_(text, pyarrow.float64()),
            "record_id": text,
            "others": pyarrow.list_(answer),
            "contrast": images,
        }
    )


def _row(example: Example) -> dict[str, Any]:
    return {
        "id": example.id,
        "images": _image_cells(example.images),
        "prompt": [{"role": turn.role, "text": turn.text} for turn in example.prompt],
        "chosen": _answer_cell(example.chosen),
        "rejected": _answer_cell(example.rejected),
        "scores": list(example.scores.items()),
        "record_id": example.record_id,
        "others": [_answer_cell(answer) for answer in example.others],
        "contrast": _image_cells(example.contrast),
    }


def _answer_cell(answer: Answer) -> dict[str, Any]:
    return {field.name: getattr(answer, field.name) for field in fields(Answer)} | {
        "images": _image_cells(answer.images)
    }


def _image_cells(images: Sequence[ImageFile] | None) -> list[dict[str, str]] | None:
    return None if images is None else [{"path": str(image.path), "sha256": image.sha256} for image in images]


def _example(row: dict[str, Any]) -> Example:
    return Example(
        row["id"],
        _images(row["images"]) or (),
        tuple(Message(**turn) for turn in row["prompt"]),
        _answer(row["chosen"]),
        _answer(row["rejected"]),
        dict(row["scores"]),
        row["record_id"],
        tuple(map(_answer, row["others"])),
        _images(row["contrast"]),
    )


def _answer(cell: dict[str, Any]) -> Answer:
    return Answer(**{**cell, "edits": tuple(cell["edits"]), "images": _images(cell["images"])})


def _images(cells: Sequence[dict[str, str]] | None) -> tuple[ImageFile, ...] | None:
    return None if cells is None else tuple(ImageFile(Path(cell["path"]), cell["sha256"]) for cell in cells)
