"""Kinds of error in HallusionBench: made up by language, seen wrongly, or both (arXiv 2310.14566, section 3.4).

Every answer about an altered figure is held beside the answer to the same question about the original one (figure 0;
none at all where the figure is a supplement). Whether the two agree is the judge's second question; without a judge,
they agree where both say the same word. The rules are those of the official tool's diagnosis, question by question.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from veridical.protocols.judging import Judgements, JudgePrompt, Template
from veridical.protocols.types import Answers, Item, Question

WRONG, RIGHT, UNCLEAR = 0, 1, 2

Kind = Literal["language", "vision", "mixed"]


def is_original(question: Question) -> bool:
    """Whether the question is about the original figure, or about none where a figure is a supplement."""
    return bool(question.more["figure"] == "0")


def originals(questions: Sequence[Question]) -> Mapping[str, Question]:
    """By id of a question about an altered figure, the same question about the original one."""
    by_pair = {_pair(question): question for question in questions if is_original(question)}
    return {q.id: by_pair[_pair(q)] for q in questions if not is_original(q) and _pair(q) in by_pair}


def sameness_id(key: str) -> str:
    """The id of the judge's second question about the answer `key`."""
    return f"{key}/same"


def sameness_prompts(questions: Sequence[Question], answers: Answers, made_from: Template) -> list[JudgePrompt]:
    """What to ask about each answer whose original is answered: {response}, {original}."""
    texts = answers.texts
    asked = [(key, first.id) for key, first in originals(questions).items() if key in texts and first.id in texts]
    return [
        JudgePrompt(sameness_id(key), made_from.fill(response=texts[key], original=texts[first]))
        for key, first in asked
    ]


def parse_same(text: str) -> bool:
    """Whether a judgement holds "same", in any case; "not the same" does, as in the official tool."""
    return "same" in text.lower()


def agreement(questions: Sequence[Question], items: Mapping[str, Item], judged: Judgements | None) -> dict[str, bool]:
    """Whether the answer to a question agrees with the one about the original, by id, where that is known."""
    agreed = {}
    for key, first in originals(questions).items():
        text = judged.only(sameness_id(key)) if judged else None
        if text is not None:
            agreed[key] = parse_same(text)
        elif judged is None and "unanswered" not in (items[key].fault, items[first.id].fault):
            agreed[key] = items[key].parsed is not None and items[key].parsed == items[first.id].parsed
    return agreed


def error_kinds(
    questions: Sequence[Question], codes: Mapping[str, int | None], agree: Mapping[str, bool]
) -> dict[str, Kind | None]:
    """The kind of each error, by question id; None where it depends on something that is not known."""
    first = originals(questions)
    kinds: dict[str, Kind | None] = {}
    for question in questions:
        code = codes[question.id]
        if code is None or code == RIGHT:
            continue
        if is_original(question):
            kind = _original_error(question, code)
            if kind:
                kinds[question.id] = kind
        else:
            before = codes[first[question.id].id] if question.id in first else None
            known = None if before is None else _altered_error(question, code, before, agree.get(question.id))
            kinds[question.id] = known
    return kinds


def counted(kinds: Iterable[Kind | None]) -> dict[str, float]:
    """How many errors are of each kind."""
    listed = list(kinds)
    return {kind: float(listed.count(kind)) for kind in ("language", "vision", "mixed")}


def _original_error(question: Question, code: int) -> Kind | None:
    """Seen wrongly; without a figure, an answer is made up, and not to know is right."""
    if question.kind == "VD":
        return "vision"
    return "language" if code == WRONG else None


def _altered_error(question: Question, code: int, before: int, same: bool | None) -> Kind | None:
    """An error about an altered figure, by what was said before; None where `same` decides and is not known."""
    if question.kind == "VD":
        return _either(before == RIGHT and code == WRONG, same, "mixed", "vision")
    if before == WRONG:
        return _either(code == WRONG, same, "language", "mixed")
    edited = question.more["visual_input"] == "2"
    return _either(before == RIGHT and code == WRONG and edited, same, "language", "vision")


def _either(decides: bool, same: bool | None, agreed: Kind, otherwise: Kind) -> Kind | None:
    if not decides:
        return otherwise
    return None if same is None else agreed if same else otherwise


def _pair(question: Question) -> tuple[str, str]:
    return question.group, question.more["question"]
