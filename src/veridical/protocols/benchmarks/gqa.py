"""gqa/1: short answers to questions about scenes (Hudson and Manning 2019, arXiv 1902.09506).

Accuracy in percent over the balanced questions; `open` are those whose structural type is query, `binary` all others;
one accuracy for each structural and semantic type, for each number of words (`words_7`) and of reasoning steps
(`steps_3`). `distribution` is the chi-square distance of the answers given in
each global group from the true ones, weighted by group, over 100 (lower is better; without an interval, since
resampling alone makes it larger). With --choices, `validity` and `plausibility` are the percent of answers that can be
one at all, and that are in some image of the data set. With --consistency, the percent of right answers among the
questions that a rightly answered one entails, averaged over those. Without, these are null. Grounding is left out: it
needs a model's attention maps.

Parsers: `official` compares as they stand; `llava` drops periods at the end and lower-cases first, as LLaVA's
conversion does (a blank at the end stays, and makes an answer wrong); `lmms-eval` ignores case and all punctuation;
`vlmevalkit` strips and lower-cases.

Metrics: accuracy, open, binary, by type, consistency, validity, plausibility (percent), distribution (chi-square /
100).

Variants: `--parser` official, llava, lmms-eval, vlmevalkit.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from veridical.errors import UserError
from veridical.protocols.answer_files import AnswerSettings, Fields, checked, read_answers, read_json
from veridical.protocols.answer_writers import as_json
from veridical.protocols.benchmarks.gqa_more import consistency, distribution, fitting, lengths
from veridical.protocols.joining import Joining, join
from veridical.protocols.metrics import Sums, share, tally
from veridical.protocols.statistics import FloatArray
from veridical.protocols.types import Answers, Item, Question, Scored, unanswered

NAME = "gqa"
VERSION = 1
MAX_NEW_TOKENS = 16
SUFFIX = "\nAnswer the question using a single word or phrase."

_FIELDS = {"question": "text", "answer": "text"}
_OPTIONAL = {
    "types": "object",
    "groups": "object",
    "entailed": "list of texts",
    "imageId": "text or number",
    "semantic": "list",
}

Parser = Literal["official", "llava", "lmms-eval", "vlmevalkit"]

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
PARSERS: Mapping[Parser, Callable[[str], str]] = {
    "official": lambda text: text,
    "llava": lambda text: text.rstrip(".").lower(),
    "lmms-eval": lambda text: text.strip().lower().translate(_NO_PUNCTUATION),
    "vlmevalkit": lambda text: text.strip().lower(),
}


@dataclass(frozen=True, kw_only=True)
class Settings(AnswerSettings):
    """GQA's files and the rule for answers."""

    questions: Path
    """Questions such as testdev_balanced_questions.json: {id: {question, answer, imageId, types, isBalanced}}."""
    answers: Path | None = None
    """Predictions: rows of questionId and prediction, or LLaVA's of question_id and text."""
    parser: Parser = "official"
    """How answers are compared: official, llava, lmms-eval or vlmevalkit."""
    choices: Path | None = None
    """For validity and plausibility, such as val_choices.json: {id: {"valid": [...], "plausible": [...]}}."""
    consistency: bool = False
    """Also count the questions that others entail; takes all questions, such as val_all_questions.json."""


def ask(settings: Settings) -> list[Question]:
    """The balanced questions; with --consistency, those that they entail, too (of the kind "entailed")."""
    content = read_json(settings.questions)
    if not isinstance(content, dict) or not all(isinstance(row, dict) for row in content.values()):
        raise UserError(f'{settings.questions}: GQA\'s questions are {{"id": {{"question": ..., "answer": ...}}}}.')
    balanced = {str(key): row for key, row in content.items() if row.get("isBalanced", True)}
    entailed = _entailed(settings, balanced, content) if settings.consistency else {}
    return [
        *(_question(settings, key, row) for key, row in balanced.items()),
        *(_question(settings, key, row, "entailed") for key, row in entailed.items()),
    ]


def _entailed(settings: Settings, balanced: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """The questions that balanced ones entail and that are not balanced themselves."""
    entailed = {}
    for key, row in balanced.items():
        checked(row, f"{settings.questions}, question {key}", _FIELDS, _OPTIONAL)
        for other in row.get("entailed") or ():
            if other not in content:
                raise UserError(
                    f"{settings.questions}: question {key} entails {other}, which is missing; --consistency takes "
                    "the file of all questions."
                )
            if other not in balanced:
                entailed[other] = content[other]
    return entailed


def _question(settings: Settings, key: str, row: Mapping[str, Any], kind: str = "") -> Question:
    checked(row, f"{settings.questions}, question {key}", _FIELDS, _OPTIONAL)
    types = row.get("types") or {}
    image = f"{row.get('imageId', key)}.jpg"
    more = {
        "types": {name: types[name] for name in ("structural", "semantic") if types.get(name)},
        "lengths": lengths(row["question"], (step for step in row.get("semantic") or () if isinstance(step, dict))),
        "common": "Common" in (types.get("detailed") or ""),
        "group": (row.get("groups") or {}).get("global"),
        "entailed": tuple(other for other in row.get("entailed") or () if other != key),
    }
    kind = kind or ("open" if types.get("structural") == "query" else "binary")
    return Question(key, image, row["question"] + SUFFIX, row["answer"], kind, image, more)


def answers(settings: Settings, questions: Sequence[Question]) -> Answers:
    """The predictions by question id; those to questions that are not asked count as surplus."""
    if settings.answers is None:
        raise UserError("--answers: give the file of predictions.")
    joining = Joining()
    fields = Fields(id=("questionId", "question_id", "id"), text=("prediction", "text", "answer", "response"))
    join(read_answers(settings.answers, settings), questions, fields, joining)
    return joining.done()


def write(questions: Sequence[Question], texts: Mapping[str, str]) -> dict[str, str]:
    """An array of `questionId` and `prediction`."""
    rows = [{"questionId": q.id, "prediction": texts[q.id]} for q in questions if q.id in texts]
    return {"gqa.json": as_json(rows)}


def count(settings: Settings, questions: Sequence[Question], answers: Answers) -> Scored:
    """Compare all answers by the chosen rule."""
    parser = settings.parser
    items = {q.id: _item(q, answers.texts.get(q.id), parser) for q in questions}
    balanced = [question for question in questions if question.kind != "entailed"]
    choices = _read_choices(settings.choices) if settings.choices else None
    rows = []
    for q in balanced:
        row = _cells(q, items[q.id])
        row |= consistency(q, items) if settings.consistency else {}
        row |= fitting(q, items[q.id], choices, _comparable(parser)) if choices is not None else {}
        rows.append((q.group, row))
    columns = sorted(dict.fromkeys(name for _, row in rows for name in row), key=_by_length)
    made = tally(rows, columns, partial(_metrics, columns=columns))
    grouped = [(str(q.more["group"]), _truth(q, parser), items[q.id].parsed) for q in balanced if q.more["group"]]
    return Scored(
        protocol=f"{NAME}[{parser}]/{VERSION}",
        tally=replace(made, fixed={"distribution": distribution(grouped)}),
        items=list(items.values()),
        faults=answers.faults,
        notes=_notes(settings, questions, answers),
    )


def _read_choices(path: Path) -> Mapping[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f'{path}: GQA\'s choices are {{"id": {{"valid": [...], "plausible": [...]}}}}.')
    return content


def _item(question: Question, text: str | None, parser: Parser) -> Item:
    more: dict[str, Any] = {"label": question.truth, "answer": text}
    if question.kind == "entailed":
        more["balanced"] = False
    if text is None:
        return unanswered(question, **more)
    read = PARSERS[parser](text)
    return Item(question.id, read, read == _truth(question, parser), "" if text.strip() else "unparsed", more)


def _comparable(parser: Parser) -> Callable[[str], str]:
    """How the true side is read: the harnesses treat both alike, the others take it as it stands."""
    return PARSERS[parser] if parser in ("lmms-eval", "vlmevalkit") else PARSERS["official"]


def _truth(question: Question, parser: Parser) -> str:
    return _comparable(parser)(question.truth)


def _cells(question: Question, item: Item) -> dict[str, float]:
    types = [f"{name}_{value}" for name, value in question.more["types"].items()]
    parts = ["accuracy", question.kind, *types, *question.more["lengths"]]
    return {
        f"{part}/{what}": float(number)
        for part in parts
        for what, number in (("asked", 1), ("right", bool(item.right)))
    }


def _by_length(column: str) -> tuple[str, int]:
    """Sort the groups by length after the others, and by number."""
    kind, _, number = column.partition("/")[0].partition("_")
    return (kind, int(number)) if kind in ("words", "steps") else ("", 0)


def _metrics(sums: Sums, columns: Sequence[str]) -> dict[str, FloatArray]:
    parts = dict.fromkeys(column.rpartition("/")[0] for column in columns if column.endswith(("/asked", "/right")))
    metrics = {part: share(sums[f"{part}/right"], sums[f"{part}/asked"]) for part in parts}
    nothing = np.full(np.shape(sums["accuracy/asked"]), np.nan)
    last = {name: metrics.pop(name, nothing) for name in ("consistency", "validity", "plausibility")}
    return {**metrics, **last}


def _notes(settings: Settings, questions: Sequence[Question], answers: Answers) -> list[str]:
    notes = [] if settings.choices else ["validity and plausibility take --choices"]
    notes += [] if settings.consistency else ["consistency takes --consistency and the file of all questions"]
    texts = [(answers.texts[q.id], q.truth) for q in questions if q.id in answers.texts]
    near = sum(text != truth and PARSERS["llava"](text) == truth for text, truth in texts)
    if settings.parser == "official" and near:
        notes.append(f"{near} answers are wrong by case or a period at the end alone; --parser llava reads them")
    return notes
