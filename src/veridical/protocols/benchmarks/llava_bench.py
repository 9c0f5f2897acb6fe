"""llava-bench/1: 60 questions in the wild; a judge rates the answer beside GPT-4's (Liu et al. 2023, arXiv 2304.08485).

The score is 100 x mean rating of the model / mean rating of the reference, both means rounded to 3 decimals first; both
means x 10 are reported, too; in all and by category. A judgement's first line must be two numbers with one blank or
comma between; every other one, and
"8 nan" and "8 inf", rates both -1, which stays in the means, as in the official scorer. Published numbers use
gpt-4-0314 at temperature 0.2, and the official rules.

Metrics: score relative to GPT-4's answers (percent), both means (times 10).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from veridical.errors import UserError
from veridical.protocols.answer_files import AnswerSettings, Fields, read_answers, read_rows, require
from veridical.protocols.answer_writers import as_lines
from veridical.protocols.joining import Joining, join
from veridical.protocols.judge_service import JudgeParams
from veridical.protocols.judgement_formats import llava_bench as official_files
from veridical.protocols.judging import (
    Judgements,
    JudgementSettings,
    JudgePrompt,
    Template,
    one_each,
    one_run,
    template,
)
from veridical.protocols.metrics import Sums, rounded, share, tally
from veridical.protocols.statistics import FloatArray
from veridical.protocols.types import Answers, Item, Question, Scored

official_judgements = official_files.read

NAME = "llava-bench"
VERSION = 1
MAX_NEW_TOKENS = 1024
JUDGE = JudgeParams(max_tokens=1024, temperature=0.2)
SYSTEM = "You check the quality of answers, and you are helpful and precise."
NO_RATING = (-1.0, -1.0)


@dataclass(frozen=True, kw_only=True)
class Settings(AnswerSettings, JudgementSettings):
    """LLaVA-Bench's files and the judge's."""

    questions: Path
    """questions.jsonl: question_id, image, text, category."""
    context: Path | None = None
    """context.jsonl: image, caption; needed for prompts."""
    references: Path | None = None
    """answers_gpt4.jsonl: question_id, text; needed for prompts."""
    answers: Path | None = None
    """Rows of question_id and text."""


def ask(settings: Settings) -> list[Question]:
    """The questions by their category."""
    questions = []
    for number, (place, row) in enumerate(read_rows(settings.questions).rows, start=1):
        key = str(row.get("question_id", number))
        image, prompt = str(row.get("image", "")), str(require(row, ("text", "question"), place))
        questions.append(Question(key, image, prompt, None, str(row.get("category") or "all"), image or key))
    return questions


def answers(settings: Settings, questions: Sequence[Question]) -> Answers:
    """The model's answers by id."""
    if settings.answers is None:
        raise UserError("--answers: give the file of answers.")
    joining = Joining()
    fields = Fields(text=("text", "answer", "response", "prediction"))
    join(read_answers(settings.answers, settings), questions, fields, joining)
    return joining.done()


def judge_template(settings: Settings) -> Template:
    """What the judge is asked: {context}, {question}, {reference}, {answer}."""
    return template(settings, "llava_bench", SYSTEM)


def prompts(settings: Settings, questions: Sequence[Question], answers: Answers) -> list[JudgePrompt]:
    """One for each answer. Without context and references (to count judgements only) those stay empty."""
    made_from = judge_template(settings)
    if settings.make_prompts and not (settings.context and settings.references):
        raise UserError("--make-prompts: needs --context and --references.")
    contexts = _by(settings.context, ("image",), ("caption", "text"))
    references = _by(settings.references, ("question_id",), ("text", "answer"))

    def fill(q: Question, text: str) -> str:
        context, reference = contexts.get(q.image, ""), references.get(q.id, "")
        return made_from.fill(context=context, question=q.prompt, reference=reference, answer=text)

    return one_each(questions, answers, fill)


def write(questions: Sequence[Question], texts: Mapping[str, str]) -> dict[str, str]:
    """Rows of `question_id`, `prompt` and `text`."""
    rows = ({"question_id": q.id, "prompt": q.prompt, "text": texts[q.id]} for q in questions if q.id in texts)
    return {f"{NAME}.jsonl": as_lines(rows)}


def count(settings: Settings, questions: Sequence[Question], answers: Answers, judged: Judgements) -> Scored:
    """Parse the ratings and average; what has none is left out and named."""
    one_run(judged)
    items = [_item(question, answers.texts.get(question.id), judged.only(question.id)) for question in questions]
    kinds = tuple(dict.fromkeys(question.kind for question in questions if question.kind != "all"))
    rows = []
    for question, item in zip(questions, items, strict=True):
        if item.fault not in ("unanswered", "unjudged"):
            reference, model = item.parsed or NO_RATING
            counted = {"items": 1.0, "reference": reference, "model": model}
            parts = dict.fromkeys(("all", question.kind))
            rows.append((question.group, {f"{part}/{name}": v for part in parts for name, v in counted.items()}))
    columns = [f"{part}/{name}" for part in ("all", *kinds) for name in ("items", "reference", "model")]
    faults = {**answers.faults, **judged.faults}
    made = tally(rows, columns, partial(_metrics, parts=("all", *kinds)))
    return Scored(f"{NAME}/{VERSION}", made, items, faults, judged.judge)


def parse_ratings(text: str) -> tuple[float, float] | None:
    """The two numbers that are all of the first line; None for any other line ("8, 7" has three parts)."""
    parts = text.split("\n")[0].replace(",", " ").split(" ")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        return None
    return (numbers[0], numbers[1]) if len(numbers) == 2 and all(map(math.isfinite, numbers)) else None


def _item(question: Question, answer: str | None, judgement: str | None) -> Item:
    more = {"kind": question.kind, "answer": answer, "judgement": judgement}
    if answer is None:
        return Item(question.id, None, None, "unanswered", more)
    if judgement is None:
        return Item(question.id, None, None, "unjudged", more)
    ratings = parse_ratings(judgement)
    return Item(question.id, list(ratings) if ratings else None, None, "" if ratings else "unparsed", more)


def _metrics(sums: Sums, parts: Sequence[str]) -> dict[str, FloatArray]:
    metrics: dict[str, FloatArray] = {}
    for part in parts:
        means = {
            name: np.round(share(sums[f"{part}/{name}"], sums[f"{part}/items"], 1.0), 3)
            for name in ("reference", "model")
        }
        metrics[part] = rounded(share(means["model"], means["reference"]), 1)
        metrics[f"{part}_reference"] = rounded(means["reference"] * 10, 1)
        metrics[f"{part}_model"] = rounded(means["model"] * 10, 1)
    return metrics


def _by(path: Path | None, keys: Sequence[str], values: Sequence[str]) -> dict[str, str]:
    if path is None:
        return {}
    rows = read_rows(path).rows
    return {str(require(row, keys, place)): str(require(row, values, place)) for place, row in rows}
