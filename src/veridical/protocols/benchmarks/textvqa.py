"""textvqa/1: reading text in images, scored by VQA accuracy (Singh et al. 2019, arXiv 1904.08920).

An answer's score is the mean over the ten annotators of min(1, matches among the other nine / 3); accuracy in percent.

Parsers: `official` normalises answers and annotations as the challenge's M4C evaluator does (lmms-eval, too); `vqa` is
the original VQA evaluator, which normalises only where the annotators differ; `vlmevalkit` always applies VQA's rules
and spares periods after digits.

Metrics: accuracy (percent).

Variants: `--parser` official (M4C), vqa, vlmevalkit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from veridical.errors import UserError
from veridical.protocols.answer_files import AnswerSettings, Fields, checked, read_answers, read_json
from veridical.protocols.joining import Joining, join
from veridical.protocols.metrics import Sums, share, tally
from veridical.protocols.statistics import FloatArray
from veridical.protocols.types import Answers, Item, Question, Scored, unanswered
from veridical.protocols.vqa_text import PERIOD, PERIOD_MISTYPED, digits_and_articles, strip_punctuation

NAME = "textvqa"
VERSION = 1
MAX_NEW_TOKENS = 16
SUFFIX = "\nAnswer the question using a single word or phrase."

Parser = Literal["official", "vqa", "vlmevalkit"]

_FIELDS = {"image_id": "text or number", "question_id": "text or number", "question": "text", "answers": "list"}


@dataclass(frozen=True, kw_only=True)
class Settings(AnswerSettings):
    """TextVQA's files and the rule for answers."""

    questions: Path
    """TextVQA_0.5.1_val.json: {data: [{image_id, question_id, question, answers}]}."""
    answers: Path | None = None
    """Rows of question_id and answer, or LLaVA's of question_id (an image's), prompt and text."""
    parser: Parser = "official"
    """How answers are normalised: official, vqa or vlmevalkit."""


def ask(settings: Settings) -> list[Question]:
    """The questions, without the tokens that an OCR read: with them the numbers are others."""
    content = read_json(settings.questions)
    rows = content.get("data") if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise UserError(f'{settings.questions}: TextVQA\'s file is {{"data": [...]}}.')
    return [_question(row, f"{settings.questions}, entry {n}") for n, row in enumerate(rows, start=1)]


def answers(settings: Settings, questions: Sequence[Question]) -> Answers:
    """The answers by question id; LLaVA's by image and question."""
    if settings.answers is None:
        raise UserError("--answers: give the file of answers.")
    joining = Joining()
    join(read_answers(settings.answers, settings), questions, Fields(), joining)
    return joining.done()


def count(settings: Settings, questions: Sequence[Question], answers: Answers) -> Scored:
    """Score all answers against their ten annotations."""
    items = [_item(question, answers.texts.get(question.id), settings.parser) for question in questions]
    rows = [(q.group, {"asked": 1.0, "score": i.more["score"]}) for q, i in zip(questions, items, strict=True)]
    notes = ["prompts with OCR tokens give far higher numbers than prompts without; say which"]
    return Scored(
        f"{NAME}[{settings.parser}]/{VERSION}",
        tally(rows, ("asked", "score"), _metrics),
        items,
        answers.faults,
        {},
        notes,
    )


def vqa_accuracy(answer: str, annotations: Sequence[str]) -> float:
    """The mean over annotators of min(1, matches among the others / 3); texts are compared as they stand."""
    matches = sum(annotation == answer for annotation in annotations)
    scores = [min(1.0, (matches - (annotation == answer)) / 3) for annotation in annotations]
    return sum(scores) / len(scores)


def normalise(text: str, parser: Parser) -> str:
    """A text as one of the evaluators compares it."""
    return _NORMALISERS[parser](text)


def _official(text: str) -> str:
    low = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    bare = low.replace("\n", " ").replace("\t", " ").strip()
    return digits_and_articles(strip_punctuation(bare, PERIOD_MISTYPED))


def _vqa(text: str, period: re.Pattern[str] = PERIOD_MISTYPED) -> str:
    bare = text.replace("\n", " ").replace("\t", " ").strip()
    return digits_and_articles(strip_punctuation(bare, period))


_NORMALISERS: Mapping[Parser, Callable[[str], str]] = {
    "official": _official,
    "vqa": _vqa,
    "vlmevalkit": lambda text: _vqa(text, PERIOD),
}


def _item(question: Question, text: str | None, parser: Parser) -> Item:
    more: dict[str, Any] = {"labels": question.truth, "answer": text, "score": 0.0}
    if text is None:
        return unanswered(question, **more)
    if parser == "vqa" and len(set(question.truth)) == 1:
        read, truth = text.replace("\n", " ").replace("\t", " ").strip(), question.truth
    else:
        read, truth = normalise(text, parser), [normalise(truth_text, parser) for truth_text in question.truth]
    score = vqa_accuracy(read, truth)
    return Item(question.id, read, score > 0, "" if text.strip() else "unparsed", more | {"score": score})


def _metrics(sums: Sums) -> dict[str, FloatArray]:
    return {"accuracy": share(sums["score"], sums["asked"])}


def _question(row: Any, place: str) -> Question:
    checked(row, place, _FIELDS)
    annotated = [answer.get("answer") if isinstance(answer, dict) else answer for answer in row["answers"]]
    truth = [str(answer) for answer in annotated if answer is not None]
    if not truth:
        raise UserError(f"{place}: has no annotated answers.")
    image = str(row["image_id"])
    return Question(str(row["question_id"]), f"{image}.jpg", row["question"] + SUFFIX, truth, group=image)
