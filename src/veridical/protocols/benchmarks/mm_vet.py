"""mm-vet/1: 218 open questions that need several capabilities at once, rated 0 to 1 by a judge (arXiv 2308.02490).

Metrics are means x 100 over items, in all, for each capability (an item counts in each of its own) and for each set of
capabilities; over several runs of the judge (files) the mean. The text before the first blank must be a number in [0,
1], else the item rates 0. Published numbers use gpt-4-0613 at temperature 0 in five runs, and the official prompt.

Metrics: total, by capability and by set of them (percent).

Variants: several runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from veridical.errors import UserError
from veridical.protocols.answer_files import AnswerSettings, Fields, checked, read_answers, read_json
from veridical.protocols.answer_writers import as_json
from veridical.protocols.joining import Joining, join
from veridical.protocols.judge_service import JudgeParams
from veridical.protocols.judgement_formats import mm_vet as official_files
from veridical.protocols.judging import Judgements, JudgementSettings, JudgePrompt, Template, one_each, template
from veridical.protocols.metrics import Sums, share, tally
from veridical.protocols.statistics import FloatArray
from veridical.protocols.types import Answers, Item, Question, Scored

official_judgements = official_files.read

NAME = "mm-vet"
VERSION = 1
MAX_NEW_TOKENS = 512

_FIELDS = {**dict.fromkeys(("imagename", "question", "answer"), "text"), "capability": "list of texts"}


@dataclass(frozen=True, kw_only=True)
class Settings(AnswerSettings, JudgementSettings):
    """MM-Vet's files and the judge's."""

    questions: Path
    """mm-vet.json: {"v1_0": {imagename, question, answer, capability}}."""
    answers: Path | None = None
    """{"v1_0": text}, or rows of id and text."""


def ask(settings: Settings) -> list[Question]:
    """The questions, asked as they stand."""
    content = read_json(settings.questions)
    if not isinstance(content, dict):
        raise UserError(f'{settings.questions}: MM-Vet\'s questions are {{"v1_0": {{...}}}}.')
    questions = []
    for key, row in content.items():
        checked(row, f"{settings.questions}, {key}", _FIELDS)
        kind = "+".join(sorted(row["capability"]))
        questions.append(Question(key, row["imagename"], row["question"], row["answer"], kind, key))
    return questions


def answers(settings: Settings, questions: Sequence[Question]) -> Answers:
    """The model's answers by id."""
    if settings.answers is None:
        raise UserError("--answers: give the file of answers.")
    joining = Joining()
    rows = read_answers(settings.answers, settings)
    # LLaVA's rows count the questions: 0 is v1_0.
    numbered = all(str(row.get("question_id", "")).isdecimal() for _, row in rows.rows)
    join(rows, questions, Fields(), joining, prefix="v1_" if numbered else "")
    return joining.done()


def judge_template(settings: Settings) -> Template:
    """What the judge is asked: {question}, {answer}, {prediction}."""
    return template(settings, "mm_vet")


def prompts(settings: Settings, questions: Sequence[Question], answers: Answers) -> list[JudgePrompt]:
    """One for each answer."""
    made_from = judge_template(settings)

    def fill(q: Question, text: str) -> str:
        truth = q.truth.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
        return made_from.fill(question=q.prompt, answer=truth, prediction=text)

    return one_each(questions, answers, fill)


def write(questions: Sequence[Question], texts: Mapping[str, str]) -> dict[str, str]:
    """An object with the answer to each question."""
    return {"mm-vet.json": as_json({q.id: texts[q.id] for q in questions if q.id in texts})}


def count(settings: Settings, questions: Sequence[Question], answers: Answers, judged: Judgements) -> Scored:
    """Parse the scores and average; what has none is left out and named."""
    items = [_item(q, answers.texts.get(q.id), judged.texts.get(q.id, ())) for q in questions]
    rows = []
    for question, item in zip(questions, items, strict=True):
        if item.fault not in ("unanswered", "unjudged"):
            parts = ["total", *question.kind.split("+"), f"set {question.kind}"]
            score = item.more["score"]
            rows.append((question.id, {f"{p}/{n}": v for p in parts for n, v in (("items", 1.0), ("score", score))}))
    columns = list(dict.fromkeys(name for _, row in rows for name in row))
    faults = {**answers.faults, **judged.faults}
    return Scored(
        f"{NAME}/{VERSION}", tally(rows, columns, partial(_metrics, columns=columns)), items, faults, judged.judge
    )


def parse_score(text: str) -> float | None:
    """The number before the first blank if it is within [0, 1]; None else, also for "nan", which is no score."""
    try:
        score = float(text.split(" ")[0])
    except ValueError:
        return None
    return score if 0 <= score <= 1 else None


JUDGE = JudgeParams(
    max_tokens=3,
    temperature=0.0,
    usable=lambda text: parse_score(text) is not None,
    hint="Write one number between 0 and 1 and nothing else: ",
)
"""As the official scorer: what is no number in [0, 1] is asked again up to five times, warmer each time."""


def _item(question: Question, answer: str | None, judgements: Sequence[str]) -> Item:
    more = {"kind": question.kind, "answer": answer, "judgements": list(judgements), "score": None}
    if answer is None:
        return Item(question.id, None, None, "unanswered", more)
    if not judgements:
        return Item(question.id, None, None, "unjudged", more)
    read = [parse_score(text) for text in judgements]
    score = sum(one or 0.0 for one in read) / len(read)
    return Item(question.id, read, None, "unparsed" if None in read else "", {**more, "score": score})


def _metrics(sums: Sums, columns: Sequence[str]) -> dict[str, FloatArray]:
    parts = dict.fromkeys(column.rpartition("/")[0] for column in columns)
    return {part: share(sums[f"{part}/score"], sums[f"{part}/items"]) for part in parts}
