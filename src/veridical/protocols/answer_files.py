"""Questions and answers on disk: JSON, tables, and other tools' files, read with every fault named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, overload

from veridical.errors import UserError
from veridical.protocols.answer_formats.containers import GZIP, decode, read_bytes, read_start, read_table
from veridical.protocols.answer_formats.registry import RECOGNISED, Format, converted, recognised

Row = Mapping[str, Any]

SHOWN_NAMES = 8
LONGEST_NAME = 60


@dataclass(frozen=True)
class Rows:
    """The objects in a file, each with its place, and the lines that are none."""

    path: Path
    rows: Sequence[tuple[str, Row]]
    unreadable: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class AnswerSettings:
    """How answers are read."""

    format: Format = "auto"
    """Which tool wrote the answers; auto goes by their shape. lines: one answer a line, in the questions' order."""


TEXT_FIELDS = (
    "answer", "text", "response", "prediction", "model_prediction", "model_answer", "caption", "output",
)  # fmt: skip
IMAGE_FIELDS = ("image", "image_id", "image_file", "image_path", "image_source", "imageId", "imagename")


@dataclass(frozen=True)
class Fields:
    """The names under which an answers file may hold the id, the answer, the question and the image; the first found
    counts."""

    id: Sequence[str] = ("question_id", "id")
    text: Sequence[str] = TEXT_FIELDS
    question: Sequence[str] = ("question", "prompt", "query")
    image: Sequence[str] = IMAGE_FIELDS


_FIELD_NAMES = frozenset(
    {*TEXT_FIELDS, *IMAGE_FIELDS, "question_id", "questionId", "id", "question", "prompt", "query"}
)


def read_text(path: Path) -> str:
    """A whole UTF-8 file, gzipped or not. Raises UserError if it is missing or something else."""
    return decode(path, read_bytes(path))


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises UserError, also where the file ends too early."""
    return _parse(path, read_text(path))


def _parse(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        early = str(error).startswith("Unterminated") or getattr(error, "pos", 0) >= len(text.rstrip())
        where = " (it ends too early)" if early else ""
        raise UserError(f"{path}: not valid JSON{where}: {error}; write the file again.") from None


def read_rows(path: Path) -> Rows:
    """The objects in a JSON array, in JSON lines, or in a table. Raises UserError if there are none at all."""
    content = read_bytes(path)
    table = read_table(path, content)
    rows = Rows(path, table) if table is not None else _rows_of_text(path, decode(path, content))
    if not rows.rows:
        raise UserError(
            f"{path}: holds no JSON objects; it takes one object a line, an array of objects, or a table (.csv, .tsv, "
            ".xlsx, .parquet)."
        )
    return rows


def read_answers(path: Path, settings: object = None) -> Rows:
    """The rows of a file of answers, whichever tool wrote it; `settings.format` says which, where it is not "auto".

    Raises:
        UserError: the file is of no known form.
    """
    form: str = getattr(settings, "format", "auto")
    content = read_bytes(path)
    table = read_table(path, content)
    if table is not None:
        answers = Rows(path, table)
    else:
        text = decode(path, content)
        if form == "lines" or (form == "auto" and path.suffix == ".txt" and not text.lstrip().startswith(("{", "["))):
            return Rows(path, _plain_lines(path, text))
        answers = _rows_of_text(path, text)
        lines = path.name.removesuffix(".gz").endswith(".jsonl")
        texts = _texts_by_id(answers) if form == "id-to-text" or (form == "auto" and not lines) else None
        if texts is not None:
            return Rows(path, texts)
        if form == "id-to-text":
            raise UserError(f'{path}: --format id-to-text takes {{"id": "answer", ...}}.')
    if not answers.rows:
        raise UserError(
            f"{path}: holds no answers; it takes an object a line, an array of objects, {{id: answer}}, a table (.csv, "
            ".tsv, .xlsx, .parquet), or --format lines."
        )
    rows, bad = converted(answers.rows, form, path)
    return Rows(path, rows, [*answers.unreadable, *bad])


def stream_answers(path: Path, settings: object = None) -> Rows:
    """The rows of a file of answers as `read_answers` gives them; JSON lines are read at each
    iteration, instead of being kept; of these `unreadable` is complete after one.

    Raises:
        UserError: the file is of no known form.
    """
    form: str = getattr(settings, "format", "auto")
    if path.suffix != ".jsonl" or form not in ("auto", "rows") or read_start(path).startswith(GZIP):
        return read_answers(path, settings)
    lines = JsonLines(path)
    start = list(islice(lines, RECOGNISED))
    if not start or (form == "auto" and recognised(start) != "rows"):
        return read_answers(path, settings)
    return Rows(path, lines, lines.unreadable)


class JsonLines(Sequence[tuple[str, Row]]):
    """The objects of a file of JSON lines with their places, read again for each iteration."""

    def __init__(self, path: Path) -> None:
        """Nothing is read yet."""
        self.unreadable: list[str] = []
        """The lines that were no objects, when they were last gone through."""
        self._path = path

    def __iter__(self) -> Iterator[tuple[str, Row]]:
        self.unreadable.clear()
        with self._path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise UserError(f"{self._path}: not UTF-8 text ({error.reason}); save the file as UTF-8.") from None
                row = _line(self._path, number, text, self.unreadable)
                if row is not None:
                    yield row

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @overload
    def __getitem__(self, at: int) -> tuple[str, Row]: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[tuple[str, Row]]: ...
    def __getitem__(self, at: int | slice) -> tuple[str, Row] | Sequence[tuple[str, Row]]:
        if isinstance(at, slice):
            return list(islice(self, at.start, at.stop, at.step))
        return next(islice(self, at, None))


def _rows_of_text(path: Path, text: str) -> Rows:
    """The objects in a JSON array (or its texts), in JSON lines, or one after another with several lines each."""
    stripped = text.lstrip()
    if stripped.startswith("["):
        numbered = [(f"{path}, entry {number}", row) for number, row in enumerate(_parse(path, text), start=1)]
        if numbered and all(isinstance(row, str) for _, row in numbered):
            return Rows(path, [(place, {"answer": row}) for place, row in numbered])
        good: list[tuple[str, Row]] = [(place, row) for place, row in numbered if isinstance(row, dict)]
        return Rows(path, good, [f"{place}: not an object" for place, row in numbered if not isinstance(row, dict)])
    good, bad = _lines(path, text)
    return _objects(path, text) if not good and stripped.startswith("{") else Rows(path, good, bad)


def _objects(path: Path, text: str) -> Rows:
    """The objects that follow each other in a text, each over several lines, as `json.dump(row, file, indent=4)` leaves
    them."""
    decoder, good, bad = json.JSONDecoder(), list[tuple[str, Row]](), list[str]()
    at, line, counted = text.index("{"), 1, 0
    while at >= 0:
        line, counted = line + text.count("\n", counted, at), at
        place = f"{path}, line {line}"
        try:
            row, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            if not good:
                _parse(path, text)
            bad.append(f"{place}: not JSON ({error})")
            at = text.find("\n{", at) + 1 or -1
            continue
        good.append((place, row))
        at = text.find("{", end)
        if text[end : at if at >= 0 else None].strip(" \t\r\n,"):
            bad.append(f"{place}: followed by what is no JSON object")
    return Rows(path, good if len(good) > 1 else [(str(path), row) for _, row in good], bad)


def _lines(path: Path, text: str) -> tuple[list[tuple[str, Row]], list[str]]:
    good: list[tuple[str, Row]] = []
    bad: list[str] = []
    # Not splitlines(): an answer may hold U+2028 unescaped, which ends no line of a JSON lines file.
    for number, line in enumerate(text.split("\n"), start=1):
        row = _line(path, number, line, bad)
        if row is not None:
            good.append(row)
    return good, bad


def _line(path: Path, number: int, line: str, bad: list[str]) -> tuple[str, Row] | None:
    """The object in a line with its place; None for an empty line, and for one that is none, which `bad` then names."""
    if not line.strip():
        return None
    place = f"{path}, line {number}"
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        bad.append(f"{place}: not JSON ({error})")
        return None
    if not isinstance(row, dict):
        bad.append(f"{place}: not an object")
        return None
    return place, row


def _plain_lines(path: Path, text: str) -> list[tuple[str, Row]]:
    """One answer a line, in order; a blank line is an empty answer."""
    lines = text.removesuffix("\n").split("\n")
    return [(f"{path}, line {n}", {"answer": line.removesuffix("\r")}) for n, line in enumerate(lines, start=1)]


def _texts_by_id(found: Rows) -> list[tuple[str, Row]] | None:
    """The answers in {"id": "answer", ...}; None where the file holds something else."""
    if len(found.rows) != 1 or found.unreadable:
        return None
    (place, row) = found.rows[0]
    if not row or set(row) & _FIELD_NAMES or not all(value is None or _is_answer(value) for value in row.values()):
        return None
    path = place.partition(", line ")[0]
    return [(f"{path}, {key}", {"question_id": key, "answer": value}) for key, value in row.items()]


def _is_answer(value: Any) -> bool:
    return isinstance(value, str | int | float)


def shortened(names: Iterable[Any], most: int = SHOWN_NAMES) -> str:
    """Some names in a row, and how many more there are: a message must fit on a screen."""
    listed = [str(name) for name in names]
    shown = ", ".join(name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..." for name in listed[:most])
    return f"{shown} and {len(listed) - most} more" if len(listed) > most else shown or "none"


def first_field(row: Row, names: Sequence[str]) -> Any:
    """The value under the first of `names` that the row has, else None. NaN is a missing value, as in pandas' files."""
    for name in names:
        value = row.get(name)
        if value is not None and value == value:
            return value
    return None


def require(row: Row, names: Sequence[str], place: str) -> Any:
    """The value under the first of `names`. Raises UserError naming the place where there is none."""
    value = first_field(row, names)
    if value is None:
        raise UserError(f"{place}: has none of the fields {', '.join(names)}; it has {shortened(row)}.")
    return value


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def is_texts(value: Any) -> bool:
    """Whether it is a list of texts."""
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


KINDS: Mapping[str, Callable[[Any], bool]] = {
    "text": _is_text,
    "text or number": _is_scalar,
    "list": _is_list,
    "list of texts": is_texts,
    "object": _is_object,
}
"""What a field of a file of questions may have to be."""


def checked(row: Any, place: str, fields: Mapping[str, str], optional: Mapping[str, str] | None = None) -> Row:
    """The row, which has all `fields` and each of them and of the `optional` ones of its kind (of `KINDS`).

    Raises:
        UserError: naming the place and what is wrong there.
    """
    if not isinstance(row, dict):
        raise UserError(f"{place}: is no object; it takes one with {', '.join(fields)}.")
    lacking = [name for name in fields if name not in row]
    if lacking:
        raise UserError(f"{place}: lacks {', '.join(lacking)}.")
    given = {name: kind for name, kind in (optional or {}).items() if row.get(name) is not None}
    for name, kind in {**fields, **given}.items():
        if not KINDS[kind](row[name]):
            shown = json.dumps(row[name], ensure_ascii=False)
            article = "an" if kind == "object" else "a"
            raise UserError(f"{place}: {name} is {shown[:60]}; it takes {article} {kind}.")
    sound: Row = row
    return sound
