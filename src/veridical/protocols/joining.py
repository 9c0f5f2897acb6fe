"""Joins answers with questions: by id, else by image and question, else by order where nothing contradicts it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from veridical.errors import UserError
from veridical.protocols.answer_files import Fields, Row, Rows, first_field, shortened
from veridical.protocols.types import Answers, Question

FOREIGN = ("misplaced", "surplus")
"""Faults of a row that belongs to no question."""


@dataclass
class Joining:
    """Answers as they are gathered from files, with the faults found on the way."""

    texts: MutableMapping[str, str] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, key: str, text: Any, place: str, known: Mapping[str, Any] | None) -> None:
        """Take an answer; `known` holds the questions there are, None where any id will do. NaN is no answer."""
        if known is not None and key not in known:
            self.faults["surplus"].append(f"{place}: no question has the id {key!r}")
        elif key in self.texts:
            self.faults["duplicates"].append(f"{place}: another answer to {key!r}; the first one counts")
        elif isinstance(text, bool | list | dict):
            self.faults["unreadable"].append(f"{place}: the answer to {key!r} is a {type(text).__name__}, not a text")
        elif text is not None and text == text:
            self.texts[key] = str(text)

    def foreign(self) -> int:
        """How many rows belong to no question."""
        return sum(len(self.faults.get(kind, ())) for kind in FOREIGN)

    def done(self) -> Answers:
        """What was gathered."""
        return Answers(self.texts, {kind: named for kind, named in self.faults.items() if named})


def join(found: Rows, questions: Sequence[Question], fields: Fields, joining: Joining, prefix: str = "") -> None:
    """Match a file's answers with the questions.

    Args:
        found: the answers.
        questions: those that this file answers, in the official order.
        fields: the names of the fields.
        joining: takes the answers.
        prefix: stands before an id in the file to make it a question's.

    Raises:
        UserError: no row has an answer under any of the names, or most rows don't belong to these questions.
    """
    check_fields(found, fields)
    before, taken = joining.foreign(), len(joining.texts)
    joining.faults["unreadable"].extend(found.unreadable)
    known = {question.id: question for question in questions}
    find, how = _finder(found.rows, questions, known, fields, prefix)
    unchecked = 0
    for index, (place, row) in enumerate(found.rows):
        if not any(name in row for name in fields.text):
            joining.faults["unreadable"].append(f"{place}: lacks an answer")
            continue
        key = find(index, row)
        question = known.get(key)
        asked = first_field(row, fields.question)
        unchecked += asked is not None and question is not None and not question.prompt
        if question is not None and not _agrees(row, question, fields):
            joining.faults["misplaced"].append(_misplaced(place, asked, row, question, fields))
        elif question is None and how == "order":
            joining.faults["surplus"].append(f"{place}: there are {len(questions)} questions")
        else:
            joining.add(key, first_field(row, fields.text), place, known)
    refuse_foreign(found, questions, joining, before, taken + unchecked, how)


def join_images(
    found: Rows,
    questions: Sequence[Question] | None,
    fields: Fields,
    joining: Joining,
    key_of: Callable[[Any, Collection[str]], str],
) -> None:
    """Match a file's answers with images: by the image that a row names; where no row names one, by order.

    Args:
        found: the answers.
        questions: one an image, in order; None where any image will do.
        fields: the names of the fields; `id` those that may hold the image.
        joining: takes the answers.
        key_of: makes the question's id of an image's name, given those there are.

    Raises:
        UserError: no row has an answer, most belong to no image, or rows name no images and their number differs.
    """
    check_fields(found, fields)
    known = None if questions is None else {question.id: question for question in questions}
    unnamed = all(first_field(row, fields.id) is None for _, row in found.rows)
    if unnamed and questions is not None:
        _same_number(found.rows, questions)
    for index, (place, row) in enumerate(found.rows):
        name = first_field(row, fields.id)
        if unnamed and questions is not None:
            joining.add(questions[index].id, first_field(row, fields.text), place, known)
        elif name is None or not any(field in row for field in fields.text):
            joining.faults["unreadable"].append(f"{place}: lacks {fields.id[0]} or {fields.text[0]}")
        else:
            key = key_of(name, known or ())
            # The question's own id, so that there is one text of it in memory.
            key = known[key].id if known is not None and key in known else key
            joining.add(key, first_field(row, fields.text), place, known)
    # Only now: rows that are read as they are gone through name the lines between them as they come.
    joining.faults["unreadable"].extend(found.unreadable)
    if questions is not None:
        refuse_foreign(found, questions, joining, 0, 0)


def _same_number(rows: Sequence[object], questions: Sequence[Question]) -> None:
    if len(rows) != len(questions):
        raise UserError(
            f"{len(rows)} answers for {len(questions)} questions, and the rows name no questions, so the order can't "
            "tell which are answered; give ids, or the questions, beside the answers."
        )


def refuse_foreign(
    found: Rows, questions: Sequence[Question], joining: Joining, before: int, taken: int, how: str = "id"
) -> None:
    """Raises UserError where most rows of a file belong to no question and it doesn't answer all of them.

    Args:
        found: the file.
        questions: those that it should answer.
        joining: what was joined, this file included.
        before: rows without a question in the files before it.
        taken: answers in the files before it.
        how: by what it was joined, for the message.
    """
    foreign, own = joining.foreign() - before, len(joining.texts) - taken
    if foreign <= own or own >= len(questions):
        return
    example = next(faults[-1] for kind in FOREIGN if (faults := joining.faults.get(kind)))
    raise UserError(
        f"{found.path}: {foreign} of {foreign + own} answers belong to none of the {len(questions)} questions (joined "
        f"by {how}), such as {_short(example)}. Give the answers to these questions; rows are joined by id, else by "
        "image and question, else by order."
    )


def check_fields(found: Rows, fields: Fields) -> None:
    """Raises UserError where no row has an answer."""
    if not any(name in row for _, row in found.rows for name in fields.text):
        raise UserError(
            f"{found.path}: no row has an answer under {', '.join(fields.text)}; the first has the fields "
            f"{shortened(found.rows[0][1])}. Rename the field, or say which tool wrote the file (--format)."
        )


def image_name(value: Any) -> str:
    """An image's file name without folder and ending: what is the same in every tool's files."""
    return PurePath(str(value).strip().replace("\\", "/")).stem


def same_question(prompt: str, question: str) -> bool:
    """Whether a prompt asks the question, whatever instructions stand around it."""
    return _bare(question) in " ".join(prompt.split()).lower()


def _bare(question: str) -> str:
    """A question's first line, without what it says about the form of the answer."""
    line = question.strip().split("\n")[0]
    for instruction in ("Please answer yes or no.", "Answer the question using a single word or phrase."):
        line = line.replace(instruction, "")
    return " ".join(line.split()).lower()


def _finder(
    rows: Sequence[tuple[str, Row]],
    questions: Sequence[Question],
    known: Mapping[str, Question],
    fields: Fields,
    prefix: str,
) -> tuple[Callable[[int, Row], str], str]:
    """How a row's question is found, and by what. Raises UserError where rows tell nothing and their number differs."""

    def by_id(index: int, row: Row) -> str:
        return f"{prefix}{first_field(row, fields.id)}"

    with_id = sum(first_field(row, fields.id) is not None for _, row in rows)
    if with_id and 2 * sum(by_id(0, row) in known for _, row in rows) >= len(rows):
        agreeing = sum(_agrees(row, known[key], fields) for _, row in rows if (key := by_id(0, row)) in known)
        if 2 * agreeing >= len(rows):
            return by_id, "id"
    asked = _by_asking(questions)

    def by_question(index: int, row: Row) -> str:
        return asked(row, fields) or by_id(index, row)

    if 2 * sum(asked(row, fields) in known for _, row in rows) > len(rows):
        return by_question, "image and question"
    if with_id:
        return by_id, "id"
    unnamed = sum(first_field(row, fields.question) is None for _, row in rows)
    if unnamed:
        _same_number(rows, questions)
    ids = [question.id for question in questions]
    return lambda index, row: ids[index] if index < len(ids) else "", "order"


def _by_asking(questions: Sequence[Question]) -> Callable[[Row, Fields], str | None]:
    """Finds the question that a row states, by its text and the image where the row names one; None if several fit."""
    keys: dict[tuple[str, str], set[str]] = defaultdict(set)
    for question in questions:
        if bare := _bare(question.prompt):
            keys["", bare].add(question.id)
            keys[image_name(question.image), bare].add(question.id)

    def find(row: Row, fields: Fields) -> str | None:
        asked = first_field(row, fields.question)
        if asked is None:
            return None
        # LLaVA's rows have the image's id as the question's.
        names = [image_name(value) for value in (first_field(row, fields.image), first_field(row, fields.id)) if value]
        lines = [_bare(line) for line in str(asked).split("\n")]
        for name in [*names, ""] if first_field(row, fields.image) is None else names:
            for line in lines:
                places = keys.get((name, line), ())
                if len(places) == 1:
                    return next(iter(places))
        return None

    return find


def _agrees(row: Row, question: Question, fields: Fields) -> bool:
    """Whether what a row says about its question and image is true of this one."""
    asked = first_field(row, fields.question)
    if asked is not None and question.prompt and not same_question(str(asked), question.prompt):
        return False
    image = first_field(row, fields.image)
    if not isinstance(image, str) or not question.image or not PurePath(image).suffix:
        return True
    return image_name(image) == image_name(question.image)


def _misplaced(place: str, asked: Any, row: Row, question: Question, fields: Fields) -> str:
    said = repr(asked) if asked is not None else f"image {first_field(row, fields.image)!r}"
    truth = repr(question.prompt) if asked is not None else f"about {question.image!r}"
    return f"{place}: answers {said}, but question {question.id} is {truth}"


def _short(text: str, most: int = 300) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
