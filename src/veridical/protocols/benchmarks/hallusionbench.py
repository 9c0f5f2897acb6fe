"""hallusionbench/1: yes/no questions about images and their altered twins (Guan et al. 2023, arXiv 2310.14566).

In percent: `a_acc` per question; `q_acc` per question group, `easy` and `hard` the same over original and altered
images only; `f_acc` per figure, `f_inconsistent` and `f_wrong` the figures with some and with no right answer.
`yes_diff` is the share of answers that say yes minus that of the truth, `fp_ratio` the share of wrong answers that say
yes.

Variants: `judge`, as published, where gpt-4 says correct, incorrect or unclear; `yes-no`, without a judge, where an
answer holds one of the words. Unclear counts as right where a question stands without an image.

`language_hallucination`, `visual_illusion` and `mixed` are shares of the errors, by whether the answer agrees with the
one about the original figure: with --same the judge is asked that, too, and without it these numbers are null.

Metrics: a_acc, q_acc, f_acc, f_inconsistent, f_wrong, easy, hard (percent), yes_diff, fp_ratio (0 to 1);
language_hallucination, visual_illusion, mixed (percent of errors).

Variants: yes-no; judge; `--same` for the kinds of error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from veridical.errors import UserError
from veridical.protocols import yes_no
from veridical.protocols.answer_files import AnswerSettings, checked, first_field, read_answers, read_json
from veridical.protocols.answer_files import Fields as AnswerFields
from veridical.protocols.answer_writers import as_json, filled
from veridical.protocols.benchmarks.hallusion_errors import (
    RIGHT,
    UNCLEAR,
    WRONG,
    Kind,
    agreement,
    counted,
    error_kinds,
    sameness_id,
    sameness_prompts,
)
from veridical.protocols.joining import Joining, join, refuse_foreign
from veridical.protocols.judge_service import JudgeParams
from veridical.protocols.judgement_formats import hallusionbench as official_files
from veridical.protocols.judging import (
    Judgements,
    JudgementSettings,
    JudgePrompt,
    Template,
    one_each,
    one_run,
    template,
    wants_judge,
)
from veridical.protocols.metrics import Sums, share, tally
from veridical.protocols.statistics import FloatArray
from veridical.protocols.types import Answers, Item, Question, Scored

__all__ = ["answers", "ask", "count", "judge_template", "prompts", "wants_judge"]

official_judgements = official_files.read

NAME = "hallusionbench"
VERSION = 1
MAX_NEW_TOKENS = 256
OFFICIAL = {"VD": 591, "VS": 538}
JUDGE = JudgeParams(max_tokens=16, temperature=0.0)

VERDICTS = ("incorrect", "correct", "unclear")
"""What a judge says, at the places WRONG, RIGHT and UNCLEAR."""

KEYS = ("category", "subcategory", "set_id", "figure_id", "question_id")
_FIELDS = {
    **dict.fromkeys((*KEYS, "visual_input", "gt_answer"), "text or number"),
    **dict.fromkeys(("category", "subcategory", "question"), "text"),
}
_COLUMNS = (
    "asked", "right", "groups", "groups_right", "easy", "easy_right", "hard", "hard_right", "figures", "figures_right",
    "figures_none", "yes", "yes_truth", "wrong", "wrong_yes", "language", "vision", "mixed",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Settings(AnswerSettings, JudgementSettings):
    """HallusionBench's files. With a judge (--service.model, --make-prompts, --judgements) it decides, else the words
    yes and no."""

    questions: Path
    """HallusionBench.json."""
    answers: Path | None = None
    """The same with model_prediction, or rows of id and text."""
    rows: Literal["all", "image"] = "all"
    """All questions, or only those with an image (lmms-eval)."""
    same: bool = False
    """Also ask the judge whether answers about altered figures agree with those about the original ones."""
    same_template: Path | None = None
    """Another prompt for that, such as the official one, with {response} and {original}."""


def ask(settings: Settings) -> list[Question]:
    """The questions. Ids are CATEGORY/SUBCATEGORY/SET/FIGURE/QUESTION."""
    content = read_json(settings.questions)
    if not isinstance(content, list):
        raise UserError(f"{settings.questions}: HallusionBench's file is a list of questions.")
    questions = [_question(row, f"{settings.questions}, entry {n}") for n, row in enumerate(content, start=1)]
    return [question for question in questions if settings.rows == "all" or question.image]


def answers(settings: Settings, questions: Sequence[Question]) -> Answers:
    """The predictions by id, put together from the fields of the rows where they have them."""
    if settings.answers is None:
        raise UserError("--answers: give the questions with model_prediction, or rows of id and text.")
    joining = Joining()
    rows = read_answers(settings.answers, settings)
    if any(all(key in row for key in KEYS) for _, row in rows.rows):
        known = {question.id: question for question in questions}
        joining.faults["unreadable"].extend(rows.unreadable)
        for place, row in rows.rows:
            text = first_field(row, ("model_prediction", "prediction", "text", "answer", "response"))
            joining.add(_id(row), text, place, known)
        refuse_foreign(rows, questions, joining, 0, 0)
    else:
        join(rows, questions, AnswerFields(id=("id", "question_id")), joining)
    return joining.done()


def judge_template(settings: Settings) -> Template:
    """What the judge is asked: {question}, {reference}, {prediction}; with --same, then {response}, {original}."""
    if not settings.same:
        return template(settings, "hallusionbench")
    return Template(template(settings, "hallusionbench").text + _same_template(settings).text)


def _same_template(settings: Settings) -> Template:
    return template(replace(settings, template=settings.same_template), "hallusionbench_same")


def prompts(settings: Settings, questions: Sequence[Question], answers: Answers) -> list[JudgePrompt]:
    """One for each answer; with --same, then one for each pair of answers."""
    made_from = template(settings, "hallusionbench")

    def fill(q: Question, text: str) -> str:
        return made_from.fill(question=q.prompt, reference=q.more["details"], prediction=text)

    second = sameness_prompts(questions, answers, _same_template(settings)) if settings.same else []
    return [*one_each(questions, answers, fill), *second]


def write(questions: Sequence[Question], texts: Mapping[str, str]) -> dict[str, str]:
    """The file of questions with `model_prediction` filled in."""
    return {"hallusionbench.json": as_json(filled(questions, texts, "model_prediction"))}


def count(
    settings: Settings, questions: Sequence[Question], answers: Answers, judged: Judgements | None = None
) -> Scored:
    """Decide about each answer, then count by question, group and figure."""
    if judged:
        one_run(judged)
    items = {q.id: _item(q, answers.texts.get(q.id), judged) for q in questions}
    diagnosed = judged is None or any(sameness_id(key) in judged.texts for key in items)
    codes = {q.id: _code(q, items[q.id], judged is not None) for q in questions}
    kinds = error_kinds(questions, codes, agreement(questions, items, judged)) if diagnosed else {}
    for key, kind in kinds.items():
        items[key] = replace(items[key], more={**items[key].more, "error": kind})
    asked = [(q, items[q.id]) for q in questions if items[q.id].fault != "unjudged"]
    return Scored(
        f"{NAME}[{'yes-no' if judged is None else 'judge'}]/{VERSION}",
        tally(_rows(asked, kinds), _COLUMNS, partial(_metrics, diagnosed=diagnosed)),
        list(items.values()),
        {**answers.faults, **(judged.faults if judged else {})},
        judged.judge if judged else {},
        _notes(judged, diagnosed, kinds),
    )


def _notes(judged: Judgements | None, diagnosed: bool, kinds: Mapping[str, Kind | None]) -> list[str]:
    unknown = sum(kind is None for kind in kinds.values())
    return [
        *([] if judged else ["read by the words yes and no; published numbers are a judge's"]),
        *([] if diagnosed else ["the judge was not asked whether answers agree (--same), so errors have no kind"]),
        *([f"{unknown} errors are of no kind: what they depend on is not known"] if unknown else []),
    ]


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
        return Item(question.id, read, _right(question, _by_words(question, read)), "" if read else "unparsed", more)
    judgement = judged.only(question.id)
    if judgement is None:
        return Item(question.id, None, None, "unjudged", more)
    code = parse_judgement(judgement)
    return Item(question.id, VERDICTS[code], _right(question, code), "", {**more, "judgement": judgement})


def _code(question: Question, item: Item, judged: bool) -> int | None:
    """What was decided about an answer; None where there is none, or no judgement of it."""
    if item.fault in ("unanswered", "unjudged"):
        return None
    if judged:
        return VERDICTS.index(item.parsed)
    return _by_words(question, item.parsed)


def _by_words(question: Question, said: str | None) -> int:
    """Without a judge: what "yes", "no" or neither is worth."""
    return UNCLEAR if said is None else RIGHT if said == question.truth else WRONG


def _right(question: Question, code: int) -> bool:
    """Whether an answer counts as right: without an image, not to know is right, too."""
    return code == RIGHT or (code == UNCLEAR and question.kind == "VS" and question.more["figure"] == "0")


def _rows(
    asked: Sequence[tuple[Question, Item]], kinds: Mapping[str, Kind | None]
) -> list[tuple[str, dict[str, float]]]:
    rows = []
    groups: dict[tuple[str, str, str], list[bool]] = {}
    for question, item in asked:
        right, truth = bool(item.right), question.truth == "yes"
        yes = right == truth
        cells = {"asked": True, "right": right, "yes": yes, "yes_truth": truth}
        cells |= {"wrong": not right, "wrong_yes": not right and not truth}
        of_kind = counted([kinds.get(question.id)])
        rows.append((question.group, {**{name: float(number) for name, number in cells.items()}, **of_kind}))
        hard = "hard" if question.more["visual_input"] == "2" else "easy"
        for kind in ("groups", hard):
            groups.setdefault((question.group, kind, question.more["question"]), []).append(right)
        if not (question.kind == "VS" and question.more["figure"] == "0"):
            groups.setdefault((question.group, "figures", question.more["figure"]), []).append(right)
    for (group, kind, _), rights in groups.items():
        none = {"figures_none": float(not any(rights))} if kind == "figures" else {}
        rows.append((group, {kind: 1.0, f"{kind}_right": float(all(rights)), **none}))
    return rows


def _metrics(sums: Sums, diagnosed: bool) -> dict[str, FloatArray]:
    errors = (sums["language"] + sums["vision"] + sums["mixed"]) * diagnosed
    figures, some = sums["figures"], sums["figures"] - sums["figures_right"] - sums["figures_none"]
    return {
        "a_acc": share(sums["right"], sums["asked"]),
        "q_acc": share(sums["groups_right"], sums["groups"]),
        "f_acc": share(sums["figures_right"], sums["figures"]),
        "easy": share(sums["easy_right"], sums["easy"]),
        "hard": share(sums["hard_right"], sums["hard"]),
        "yes_diff": share(sums["yes"] - sums["yes_truth"], sums["asked"], 1.0),
        "fp_ratio": share(sums["wrong_yes"], sums["wrong"], 1.0),
        "f_inconsistent": share(some, figures),
        "f_wrong": share(sums["figures_none"], figures),
        "language_hallucination": share(sums["language"], errors),
        "visual_illusion": share(sums["vision"], errors),
        "mixed": share(sums["mixed"], errors),
    }


def _question(row: Any, place: str) -> Question:
    checked(row, place, _FIELDS, {"filename": "text"})
    more = {
        "figure": str(row["figure_id"]),
        "question": str(row["question_id"]),
        "visual_input": str(row["visual_input"]),
        "details": str(row.get("gt_answer_details", "")),
        "row": row,
    }
    group = "/".join(str(row[key]) for key in KEYS[:3])
    image = str(row.get("filename") or "") if more["visual_input"] != "0" else ""
    truth = "yes" if str(row["gt_answer"]) == "1" else "no"
    return Question(_id(row), image, row["question"], truth, row["category"], group, more)


def _id(row: Mapping[str, Any]) -> str:
    return "/".join(str(row.get(key)) for key in KEYS)
