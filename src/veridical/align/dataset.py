"""Examples on disk, so that memory does not grow with their number."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
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
    answer = pyarrow.struct({"text": text, "cut": pyarrow.bool_(), "edits": pyarrow.list_(pyarrow.int32())})
    return pyarrow.schema(
        {
            "id": text,
            "images": pyarrow.list_(pyarrow.struct({"path": text, "sha256": text})),
            "prompt": pyarrow.list_(pyarrow.struct({"role": text, "text": text})),
            "chosen": answer,
            "rejected": answer,
            "scores": pyarrow.map_(text, pyarrow.float64()),
            "record_id": text,
        }
    )


def _row(example: Example) -> dict[str, Any]:
    return {
        "id": example.id,
        "images": [{"path": str(image.path), "sha256": image.sha256} for image in example.images],
        "prompt": [{"role": turn.role, "text": turn.text} for turn in example.prompt],
        **{
            side: {"text": answer.text, "cut": answer.cut, "edits": answer.edits}
            for side, answer in (("chosen", example.chosen), ("rejected", example.rejected))
        },
        "scores": list(example.scores.items()),
        "record_id": example.record_id,
    }


def _example(row: dict[str, Any]) -> Example:
    chosen, rejected = (
        Answer(side["text"], side["cut"], tuple(side["edits"])) for side in (row["chosen"], row["rejected"])
    )
    return Example(
        row["id"],
        tuple(ImageFile(Path(image["path"]), image["sha256"]) for image in row["images"]),
        tuple(Message(**turn) for turn in row["prompt"]),
        chosen,
        rejected,
        dict(row["scores"]),
        row["record_id"],
    )
