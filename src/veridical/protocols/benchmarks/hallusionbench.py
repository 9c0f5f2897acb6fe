"""hallusionbench/1: yes/no questions about images and their altered twins (Guan et al. 2023, arXiv 2310.14566).

In percent: `a_acc` per question; `q_acc` per question group, `easy` and `hard` the same over original and altered
images only; `f_acc` per figure. `yes_diff` is the share of answers that say yes minus that of the truth, `fp_ratio`
the share of wrong answers that say yes.

Variants: `judge`, as published, where gpt-4 says correct, incorrect or unclear; `yes-no`, without a judge, where an
answer holds one of the words. Unclear counts as right where a question stands without an image. The judge's second
question, whether two answers are the same, which splits errors into kinds, is not asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from veridical.errors import UserError
from veridical.protocols import yes_no
from veridical.protocols.answer_files import Fields as AnswerFields
from veridical.protocols.answer_files import Joining, first_field, join, read_json, read_rows
from veridical.protocols.judge_service import Manner
from veridical.protocols.judging import Judgements, JudgeSettings, Prompt, Template, one_run, template, wants_judge
from veridical.protocols.scored import Answers, Item, Question, Scored
from veridical.protocols.statistics import FloatArray
from veridical.protocols.tally import Sums, share, tally

__all__ = ["answers", "ask", "count", "judge_template", "prompts", "wants_judge"]

NAME = "hallusionbench"
VERSION = 1
MAX_NEW_TOKENS = 256
OFFICIAL = {"VD": 591, "VS": 538}
JUDGE = Manner(max_tokens=16, temperature=0.0)

KEYS = ("category", "subcategory", "set_id", "figure_id", "question_id")
WRONG, RIGHT, UNCLEAR = 0, 1, 2
_COLUMNS = (
    "asked", "right", "groups", "groups_right", "easy", "easy_right", "hard", "hard_right", "figures", "figures_right",
    "yes", "yes_truth", "wrong", "wrong_yes",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Settings(JudgeSettings):
    """HallusionBench's files. With a judge (--service.model, --make-prompts, --judgements) it decides, else the words
    yes and no."""

    questions: Path
    """HallusionBench.json."""
    answers: Path | None = None
    """The same with model_prediction, or rows of id and text."""
    rows: Literal["all", "image"] = "all"
    """All questions, or only those with an image (lmms-eval)."""


def ask(settings: Settings) -> list[Question]:
    """The questions. Ids are CATEGORY/SUBCATEGORY/SET/FIGURE/QUESTION."""
    content = read_json(settings.questions)
    if not isinstance(content, list):
        raise UserError(f"{settings.questions}: HallusionBench's file is a list of questions.")
    found = [_question(row, f"{settings.questions}, entry {n}") for n, row in enumerate(content, start=1)]
    return [question for question in found if settings.rows == "all" or question.image]


def answers(settings: Settings, questions: Sequence[Question]) -> Answers:
    """The predictions by id, put together from the fields of the rows where they have them."""
    if settings.answers is None:
        raise UserError("--answers: give the questions with model_prediction, or rows of id and text.")
    joining = Joining()
    found = read_rows(settings.answers)
    if any(all(key in row for key in KEYS) for _, row in found.rows):
        known = {question.id: question for question in questions}
        for place, row in found.rows:
            text = first_field(row, ("model_prediction", "prediction", "text", "answer"))
            joining.add(_id(row), text, place, known)
    else:
        join(found, questions, AnswerFields(id=("id", "question_id")), joining)
    return joining.done()


def judge_template(settings: Settings) -> Template:
    """What the judge is asked: {question}, {reference}, {prediction}."""
    return template(settings, "hallusionbench")


def prompts(settings: Settings, questions: Sequence[Question], answers: Answers) -> list[Prompt]:
    """One for each answer."""
    made_from = judge_template(settings)
    return [
        Prompt(
            q.id,
            made_from.fill(question=q.prompt, reference=q.more["details"], prediction=answers.texts[q.id]),
            q.image,
        )
        for q in questions
        if q.id in answers.texts
    ]


def count(
    settings: Settings, questions: Sequence[Question], answers: Answers, judged: Judgements | None = None
) -> Scored:
    """Decide about each answer, then count by question, group and figure."""
    one_run(settings)
    items = [_item(question, answers.texts.get(question.id), judged) for question in questions]
    asked = [(q, item) for q, item in zip(questions, items, strict=True) if item.fault != "unjudged"]
    return Scored(
        f"{NAME}[{'yes-no' if judged is None else 'judge'}]/{VERSION}",
        tally(_rows(asked), _COLUMNS, _metrics),
        items,
        {**answers.faults, **(judged.faults if judged else {})},
        judged.judge if judged else {},
        [] if judged else ["read by the words yes and no; published numbers are a judge's"],
    )


def parse_judgement(text: str) -> int:
    """0 for "incorrect", 1 for "correct", 2 for neither; "not correct" is 1."""
    low = text.lower()
    return WRONG if "incorrect" in low else RIGHT if "correct" in low else UNCLEAR


def _item(question: Question, text: str | None, judged: Judgements | None) -> Item:
    more: dict[str, Any] = {"kind": question.kind, "label": question.truth, "answer": text}
    if text is None:
        return Item(question.id, None, False, "unanswered", more)
    if judged is None:
        read = yes_no.one_of_both(text)
        code = UNCLEAR if read is None else int(read == question.truth)
        return Item(question.id, read, _right(question, code), "" if read else "unparsed", more)
    judgement = judged.only(question.id)
    if judgement is None:
        return Item(question.id, None, None, "unjudged", more)
    code = parse_judgement(judgement)
    said = ("incorrect", "correct", "unclear")[code]
    return Item(question.id, said, _right(question, code), "", {**more, "judgement": judgement})


def _right(question: Question, code: int) -> bool:
    """Whether an answer counts as right: without an image, not to know is right, too."""
    return code == RIGHT or (code == UNCLEAR and question.kind == "VS" and question.more["figure"] == "0")


def _rows(asked: Sequence[tuple[Question, Item]]) -> list[tuple[str, dict[str, float]]]:
    rows = []
    groups: dict[tuple[str, str, str], list[bool]] = {}
    for question, item in asked:
        right, truth = bool(item.right), question.truth == "yes"
        yes = right == truth
        counted = {"asked": True, "right": right, "yes": yes, "yes_truth": truth}
        counted |= {"wrong": not right, "wrong_yes": not right and not truth}
        rows.append((question.group, {name: float(number) for name, number in counted.items()}))
        hard = "hard" if question.more["visual_input"] == "2" else "easy"
        for kind in ("groups", hard):
            groups.setdefault((question.group, kind, question.more["question"]), []).append(right)
        if not (question.kind == "VS" and question.more["figure"] == "0"):
            groups.setdefault((question.group, "figures", question.more["figure"]), []).append(right)
    rows += [(group, {kind: 1.0, f"{kind}_right": float(all(right))}) for (group, kind, _), right in groups.items()]
    return rows


def _metrics(sums: Sums) -> dict[str, FloatArray]:
    return {
        "a_acc": share(sums["right"], sums["asked"]),
        "q_acc": share(sums["groups_right"], sums["groups"]),
        "f_acc": share(sums["figures_right"], sums["figures"]),
        "easy": share(sums["easy_right"], sums["easy"]),
        "hard": share(sums["hard_right"], sums["hard"]),
        "yes_diff": share(sums["yes"] - sums["yes_truth"], sums["asked"], 1.0),
        "fp_ratio": share(sums["wrong_yes"], sums["wrong"], 1.0),
    }


def _question(row: Any, place: str) -> Question:
    wanted = (*KEYS, "visual_input", "question", "gt_answer")
    lacking = [name for name in wanted if not isinstance(row, dict) or name not in row]
    if lacking:
        raise UserError(f"{place}: lacks {', '.join(lacking)}.")
    more = {
        "figure": str(row["figure_id"]),
        "question": str(row["question_id"]),
        "visual_input": str(row["visual_input"]),
        "details": str(row.get("gt_answer_details", "")),
    }
    group = "/".join(str(row[key]) for key in KEYS[:3])
    image = str(row.get("filename") or "") if more["visual_input"] != "0" else ""
    truth = "yes" if str(row["gt_answer"]) == "1" else "no"
    return Question(_id(row), image, row["question"], truth, row["category"], group, more)


def _id(row: Mapping[str, Any]) -> str:
    return "/".join(str(row.get(key)) for key in KEYS)
