"""gqa/1: short answers to questions about scenes (Hudson and Manning 2019, arXiv 1902.09506).

Accuracy in percent over the balanced questions; `open` are those whose structural type is query, `binary` all others;
one accuracy for each structural and semantic type.

Parsers: `official` compares as they stand; `llava` drops periods at the end and lower-cases first, as LLaVA's
conversion does (a blank at the end stays, and makes an answer wrong); `lmms-eval` ignores case and all punctuation;
`vlmevalkit` strips and lower-cases.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from veridical.errors import UserError
from veridical.protocols.answer_files import Fields, Joining, join, read_json, read_rows
from veridical.protocols.scored import Answers, Item, Question, Scored, unanswered
from veridical.protocols.statistics import FloatArray
from veridical.protocols.tally import Sums, share, tally

NAME = "gqa"
VERSION = 1
MAX_NEW_TOKENS = 16
SUFFIX = "\nAnswer the question using a single word or phrase."

Parser = Literal["official", "llava", "lmms-eval", "vlmevalkit"]

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
PARSERS: Mapping[Parser, Callable[[str], str]] = {
    "official": lambda text: text,
    "llava": lambda text: text.rstrip(".").lower(),
    "lmms-eval": lambda text: text.strip().lower().translate(_NO_PUNCTUATION),
    "vlmevalkit": lambda text: text.strip().lower(),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """GQA's files and the rule for answers."""

    questions: Path
    """Questions such as testdev_balanced_questions.json: {id: {question, answer, imageId, types, isBalanced}}."""
    answers: Path | None = None
    """Predictions: rows of questionId and prediction, or LLaVA's of question_id and text."""
    parser: Parser = "official"
    """How answers are compared: official, llava, lmms-eval or vlmevalkit."""


def ask(settings: Settings) -> list[Question]:
    """The balanced questions."""
    content = read_json(settings.questions)
    if not isinstance(content, dict) or not all(isinstance(row, dict) for row in content.values()):
        raise UserError(f'{settings.questions}: GQA\'s questions are {{"id": {{"question": ..., "answer": ...}}}}.')
    found = []
    for key, row in content.items():
        if row.get("isBalanced", True):
            if "question" not in row or "answer" not in row:
                raise UserError(f"{settings.questions}: question {key} lacks question or answer.")
            types = row.get("types") or {}
            kind = "open" if types.get("structural") == "query" else "binary"
            image = f"{row.get('imageId', key)}.jpg"
            more = {name: types[name] for name in ("structural", "semantic") if types.get(name)}
            found.append(Question(str(key), image, row["question"] + SUFFIX, row["answer"], kind, image, more))
    return found


def answers(settings: Settings, questions: Sequence[Question]) -> Answers:
    """The predictions by question id; those to questions that are not balanced count as surplus."""
    if settings.answers is None:
        raise UserError("--answers: give the file of predictions.")
    joining = Joining()
    fields = Fields(
        id=("questionId", "question_id", "id"), text=("prediction", "text", "answer", "response"), question=()
    )
    join(read_rows(settings.answers), questions, fields, joining)
    return joining.done()


def count(settings: Settings, questions: Sequence[Question], answers: Answers) -> Scored:
    """Compare all answers by the chosen rule."""
    items = [_item(question, answers.texts.get(question.id), settings.parser) for question in questions]
    rows = [(question.group, _cells(question, item)) for question, item in zip(questions, items, strict=True)]
    columns = list(dict.fromkeys(name for _, row in rows for name in row))
    return Scored(
        protocol=f"{NAME}[{settings.parser}]/{VERSION}",
        tally=tally(rows, columns, partial(_metrics, columns=columns)),
        items=items,
        faults=answers.faults,
        notes=_notes(settings.parser, questions, answers),
    )


def _item(question: Question, text: str | None, parser: Parser) -> Item:
    more: dict[str, Any] = {"label": question.truth, "answer": text}
    if text is None:
        return unanswered(question, **more)
    read = PARSERS[parser]
    truth = read(question.truth) if parser in ("lmms-eval", "vlmevalkit") else question.truth
    return Item(question.id, read(text), read(text) == truth, "" if text.strip() else "unparsed", more)


def _cells(question: Question, item: Item) -> dict[str, float]:
    parts = ["accuracy", question.kind, *(f"{name}_{value}" for name, value in question.more.items())]
    return {
        f"{part}/{what}": float(number)
        for part in parts
        for what, number in (("asked", 1), ("right", bool(item.right)))
    }


def _metrics(sums: Sums, columns: Sequence[str]) -> dict[str, FloatArray]:
    parts = dict.fromkeys(column.rpartition("/")[0] for column in columns)
    return {part: share(sums[f"{part}/right"], sums[f"{part}/asked"]) for part in parts}


def _notes(parser: Parser, questions: Sequence[Question], answers: Answers) -> list[str]:
    if parser != "official":
        return []
    texts = [(answers.texts[q.id], q.truth) for q in questions if q.id in answers.texts]
    near = sum(text != truth and PARSERS["llava"](text) == truth for text, truth in texts)
    return [f"{near} answers are wrong by case or a period at the end alone; --parser llava reads them"] if near else []
