"""Questions and answers on disk: JSON arrays or JSON lines, read with every fault named."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from veridical.errors import UserError
from veridical.protocols.types import Answers, Question

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Rows:
    """The objects in a file, each with its place, and the lines that are none."""

    path: Path
    rows: Sequence[tuple[str, Row]]
    unreadable: Sequence[str] = ()


@dataclass(frozen=True)
class Fields:
    """The names under which an answers file may hold the id, the answer, and the question; the first found counts."""

    id: Sequence[str] = ("question_id", "id")
    text: Sequence[str] = ("answer", "text", "response", "prediction", "model_prediction", "output")
    question: Sequence[str] = ("question", "prompt", "query")


def read_text(path: Path) -> str:
    """A whole UTF-8 file. Raises UserError if it is absent or something else."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the path.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason}); save the file as UTF-8.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from None


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises UserError, also where the file ends too early."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        early = str(error).startswith("Unterminated") or getattr(error, "pos", 0) >= len(text.rstrip())
        where = " (it ends too early)" if early else ""
        raise UserError(f"{path}: not valid JSON{where}: {error}; write the file again.") from None


def read_rows(path: Path) -> Rows:
    """The objects in a JSON array or in JSON lines. Raises UserError if there are none at all."""
    text = read_text(path)
    if text.lstrip().startswith("["):
        found = read_json(path)
        numbered = [(f"{path}, entry {number}", row) for number, row in enumerate(found, start=1)]
        good: list[tuple[str, Row]] = [(place, row) for place, row in numbered if isinstance(row, dict)]
        bad = [f"{place}: not an object" for place, row in numbered if not isinstance(row, dict)]
    else:
        good, bad = _lines(path, text)
    if not good:
        raise UserError(f"{path}: holds no JSON objects; it takes one object a line, or an array of objects.")
    return Rows(path, good, bad)


def _lines(path: Path, text: str) -> tuple[list[tuple[str, Row]], list[str]]:
    good: list[tuple[str, Row]] = []
    bad = []
    # Not splitlines(): an answer may hold U+2028 unescaped, which ends no line of a JSON lines file.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            bad.append(f"{place}: not JSON ({error})")
            continue
        if isinstance(row, dict):
            good.append((place, row))
        else:
            bad.append(f"{place}: not an object")
    return good, bad


def first_field(row: Row, names: Sequence[str]) -> Any:
    """The value under the first of `names` that the row has, else None."""
    return next((row[name] for name in names if row.get(name) is not None), None)


def require(row: Row, names: Sequence[str], place: str) -> Any:
    """The value under the first of `names`. Raises UserError naming the place where there is none."""
    value = first_field(row, names)
    if value is None:
        raise UserError(f"{place}: has none of the fields {', '.join(names)}; it has {', '.join(row) or 'none'}.")
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
    found: Row = row
    return found


@dataclass
class Joining:
    """Answers as they are gathered from files, with the faults found on the way."""

    texts: dict[str, str] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, key: str, text: Any, place: str, known: Mapping[str, Any] | None) -> None:
        """Take an answer; `known` holds the questions there are, None where any id will do."""
        if known is not None and key not in known:
            self.faults["surplus"].append(f"{place}: no question has the id {key!r}")
        elif key in self.texts:
            self.faults["duplicates"].append(f"{place}: another answer to {key!r}; the first one counts")
        elif isinstance(text, bool | list | dict):
            self.faults["unreadable"].append(f"{place}: the answer to {key!r} is a {type(text).__name__}, not a text")
        elif text is not None:
            self.texts[key] = str(text)

    def done(self) -> Answers:
        """What was gathered."""
        return Answers(self.texts, {kind: found for kind, found in self.faults.items() if found})


def join(found: Rows, questions: Sequence[Question], fields: Fields, joining: Joining, prefix: str = "") -> None:
    """Match a file's answers with the questions: by id where the rows have one, else by their order.

    Args:
        found: the answers.
        questions: those that this file answers, in the official order.
        fields: the names of the fields.
        joining: takes the answers.
        prefix: stands before an id in the file to make it a question's.

    Raises:
        UserError: no row has an answer under any of the names.
    """
    _check_fields(found, fields)
    joining.faults["unreadable"].extend(found.unreadable)
    if any(first_field(row, fields.id) is not None for _, row in found.rows):
        _join_by_id(found, questions, fields, joining, prefix)
    else:
        _join_by_order(found, questions, fields, joining)


def _check_fields(found: Rows, fields: Fields) -> None:
    if not any(name in row for _, row in found.rows for name in fields.text):
        names = ", ".join(found.rows[0][1])
        raise UserError(
            f"{found.path}: no row has an answer under {', '.join(fields.text)}; the first has {names}; "
            "rename the field."
        )


def _join_by_id(found: Rows, questions: Sequence[Question], fields: Fields, joining: Joining, prefix: str) -> None:
    known = {question.id: question for question in questions}
    for place, row in found.rows:
        key = first_field(row, fields.id)
        question = known.get(f"{prefix}{key}")
        asked = first_field(row, fields.question)
        if key is None or not any(name in row for name in fields.text):
            joining.faults["unreadable"].append(f"{place}: lacks an id or an answer")
        elif question is not None and asked is not None and not same_question(str(asked), question.prompt):
            joining.faults["misplaced"].append(_misplaced(place, asked, question))
        else:
            joining.add(f"{prefix}{key}", first_field(row, fields.text), place, known)


def _join_by_order(found: Rows, questions: Sequence[Question], fields: Fields, joining: Joining) -> None:
    known = {question.id: question for question in questions}
    for index, (place, row) in enumerate(found.rows):
        if index >= len(questions):
            joining.faults["surplus"].append(f"{place}: there are {len(questions)} questions")
            continue
        question = questions[index]
        asked = first_field(row, fields.question)
        if not any(name in row for name in fields.text):
            joining.faults["unreadable"].append(f"{place}: lacks an answer")
        elif asked is not None and not same_question(str(asked), question.prompt):
            joining.faults["misplaced"].append(_misplaced(place, asked, question))
        else:
            joining.add(question.id, first_field(row, fields.text), place, known)


def _misplaced(place: str, asked: Any, question: Question) -> str:
    return f"{place}: answers {asked!r}, but question {question.id} is {question.prompt!r}"


def same_question(prompt: str, question: str) -> bool:
    """Whether a prompt asks the question, whatever instructions stand around it."""
    return question.strip().split("\n")[0].strip() in prompt
