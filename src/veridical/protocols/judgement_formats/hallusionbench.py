"""HallusionBench's official output: the questions' rows with `gpt4v_output_gpt_check` (0, 1, 2) and `same` (0, 1)."""

from __future__ import annotations

from collections.abc import Sequence

from veridical.protocols.judgement_formats.base import Judgement, Numbered
from veridical.protocols.types import Question

CHECK = "gpt4v_output_gpt_check"
KEYS = ("category", "subcategory", "set_id", "figure_id", "question_id")
VERDICTS = {"0": "incorrect", "1": "correct", "2": "unclear"}
SAMENESS = {"0": "different", "1": "same"}


def read(entries: Numbered, questions: Sequence[Question]) -> list[Judgement] | None:
    """The verdict of each row, and whether its answer agrees with that about the original figure."""
    if not entries or not all(isinstance(entry, dict) and CHECK in entry for _, entry in entries):
        return None
    altered = {question.id for question in questions if question.more["figure"] != "0"}
    judgements = []
    for place, entry in entries:
        key = "/".join(str(entry.get(name)) for name in KEYS)
        judgements.append(Judgement(place, key, VERDICTS.get(str(entry[CHECK]))))
        if "same" in entry and key in altered:
            judgements.append(Judgement(place, f"{key}/same", SAMENESS.get(str(entry["same"]))))
    return judgements
