"""mmhal/1: 96 questions of eight types, rated 0 to 6 by a judge (Sun et al. 2023, arXiv 2309.14525).

Score is the mean rating (0 to 6), the hallucination rate the share of ratings below 3 (0 to 1), informativeness
RLAIF-V's mean of rating - 3 for ratings from 3 on and of the rating below, over 3, in percent. A judgement without
exactly one "rating: N" with N from 0 to 6 rates 0, as in the official scorer. Published numbers use gpt-4 and the
official prompt; with --judge-sees the judge sees the image (MMHALBench-V, arXiv 2407.02477).

Metrics: score (0 to 6), hallucination_rate (0 to 1), informativeness (percent).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from veridical.errors import UserError
from veridical.protocols.answer_files import AnswerSettings, Fields, checked, read_answers, read_json
from veridical.protocols.answer_writers import as_json, filled
from veridical.protocols.joining import Joining, join
from veridical.protocols.judge_service import JudgeParams
from veridical.protocols.judgement_formats import mmhal as official_files
from veridical.protocols.judging import (
    Judgements,
    JudgementSettings,
    JudgePrompt,
    Template,
    one_each,
    one_run,
    template,
)
from veridical.protocols.metrics import Sums, share, tally
from veridical.protocols.statistics import FloatArray
from veridical.protocols.types import Answers, Item, Question, Scored

official_judgements = official_files.read

NAME = "mmhal"
VERSION = 1
MAX_NEW_TOKENS = 512
JUDGE = JudgeParams(max_tokens=1024, temperature=0.0)

TYPES = ("attribute", "adversarial", "comparison", "counting", "relation", "environment", "holistic", "other")
CYCLE = TYPES
OFFICIAL = dict.fromkeys(TYPES, 12)
RATINGS = range(7)


@dataclass(frozen=True, kw_only=True)
class Settings(AnswerSettings, JudgementSettings):
    """MMHal-Bench's files and the judge's."""

    questions: Path | None = None
    """The answer template (mmhal-bench_answer_template.json); may be left out where --answers is a filled one."""
    answers: Path | None = None
    """The template with model_answer filled, or rows with answers in the same order."""


def ask(settings: Settings) -> list[Question]:
    """The questions, numbered from 1."""
    path = settings.questions or settings.answers
    if path is None:
        raise UserError("--questions: give the answer template.")
    content = read_json(path)
    if not isinstance(content, list):
        raise UserError(f"{path}: the template is a list of questions.")
    return [_question(row, number, path) for number, row in enumerate(content, start=1)]


def answers(settings: Settings, questions: Sequence[Question]) -> Answers:
    """The model's answers; empty ones of the template are none."""
    if settings.answers is None:
        raise UserError("--answers: give the filled template, or rows of answers.")
    joining = Joining()
    fields = Fields(id=("question_id",), text=("model_answer", "answer", "text", "response"))
    join(read_answers(settings.answers, settings), questions, fields, joining)
    given = joining.done()
    return Answers({key: text for key, text in given.texts.items() if text.strip()}, given.faults)


def judge_template(settings: Settings) -> Template:
    """What the judge is asked: {image_content}, {question}, {gt_answer}, {model_answer}."""
    return template(settings, "mmhal")


def prompts(settings: Settings, questions: Sequence[Question], answers: Answers) -> list[JudgePrompt]:
    """One for each answer."""
    made_from = judge_template(settings)

    def fill(q: Question, text: str) -> str:
        content = q.more["content"]
        return made_from.fill(image_content=content, question=q.prompt, gt_answer=q.truth, model_answer=text)

    return one_each(questions, answers, fill)


def write(questions: Sequence[Question], texts: Mapping[str, str]) -> dict[str, str]:
    """The file of questions with `model_answer` filled in."""
    return {"mmhal.json": as_json(filled(questions, texts, "model_answer"))}


def count(settings: Settings, questions: Sequence[Question], answers: Answers, judged: Judgements) -> Scored:
    """Parse the ratings and average; what has none is left out and named."""
    one_run(judged)
    items = [_item(question, answers.texts.get(question.id), judged.only(question.id)) for question in questions]
    rated = [
        (q, item) for q, item in zip(questions, items, strict=True) if item.fault not in ("unanswered", "unjudged")
    ]
    kinds = tuple(dict.fromkeys(question.kind for question in questions))
    rows = [(q.id, _cells(q.kind, 0 if item.parsed is None else item.parsed)) for q, item in rated]
    columns = [
        "items",
        "rating",
        "low",
        "informative",
        *(f"{kind}/{name}" for kind in kinds for name in ("items", "rating")),
    ]
    return Scored(
        f"{NAME}/{VERSION}",
        tally(rows, columns, partial(_metrics, kinds=kinds)),
        items,
        {**answers.faults, **judged.faults},
        judged.judge,
    )


def parse_rating(text: str) -> int | None:
    """The one rating that a judgement names; None where it names none or several. "Rating: 10" names 1."""
    low = text.lower()
    ratings = [rating for rating in RATINGS if f"rating: {rating}" in low]
    return ratings[0] if len(ratings) == 1 else None


def _item(question: Question, answer: str | None, judgement: str | None) -> Item:
    more = {"kind": question.kind, "answer": answer, "judgement": judgement}
    if answer is None:
        return Item(question.id, None, None, "unanswered", more)
    if judgement is None:
        return Item(question.id, None, None, "unjudged", more)
    rating = parse_rating(judgement)
    return Item(question.id, rating, (rating or 0) >= 3, "" if rating is not None else "unparsed", more)


def _cells(kind: str, rating: int) -> dict[str, float]:
    informative = rating - 3 if rating >= 3 else rating
    counted = {"items": 1, "rating": rating, "low": rating < 3, "informative": informative}
    counted |= {f"{kind}/items": 1, f"{kind}/rating": rating}
    return {name: float(number) for name, number in counted.items()}


def _metrics(sums: Sums, kinds: Sequence[str]) -> dict[str, FloatArray]:
    metrics = {
        "score": share(sums["rating"], sums["items"], 1.0),
        "hallucination_rate": share(sums["low"], sums["items"], 1.0),
        "informativeness": share(sums["informative"], 3 * sums["items"]),
    }
    return metrics | {f"score_{kind}": share(sums[f"{kind}/rating"], sums[f"{kind}/items"], 1.0) for kind in kinds}


def _question(row: Any, number: int, path: Path) -> Question:
    checked(row, f"{path}, entry {number}", {"question": "text", "gt_answer": "text", "image_content": "list of texts"})
    kind = str(row.get("question_type") or TYPES[(number - 1) % len(TYPES)])
    image = str(row.get("image_src", "")).rpartition("/")[2] or str(row.get("image_id", ""))
    more = {"content": ", ".join(row["image_content"]), "row": row}
    return Question(str(number), image, row["question"], row["gt_answer"], kind, str(number), more)
