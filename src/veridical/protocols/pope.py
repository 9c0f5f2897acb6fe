"""pope/1: is an object there, yes or no; half of the questions ask for one that is not.

POPE (Li et al. 2023, arXiv 2305.10355) on annotated pictures. Each picture is asked after up to
`questions` of its own objects and after as many absent ones, chosen in three settings: at random,
the most popular in a corpus, or those that most often come with what is in the picture. The answer
is the likelier of "Yes" and "No" as the first word; all questions of a picture share its encoding.
In "pope-text/1" the answer is greedy text instead, read by POPE's official rule.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Literal

import numpy as np

from veridical.errors import UserError
from veridical.protocols.statistics import Ratio
from veridical.records import Message, Record

NAME = "pope/1"
TEXT_NAME = "pope-text/1"
ANSWERS = ("Yes", "No")

YesNo = Literal["yes", "no"]
Setting = Literal["random", "popular", "adversarial"]
SETTINGS: tuple[Setting, ...] = ("random", "popular", "adversarial")


@dataclass(frozen=True)
class ObjectStatistics:
    """How often objects occur in a corpus, alone and (in either order) together."""

    single: Mapping[str, int]
    together: Mapping[tuple[str, str], int]

    def company(self, name: str, present: Iterable[str]) -> float:
        """Sum over `present` of how often `name` comes along where they occur, between 0 and their number."""
        return sum(
            self.together.get((other, name), 0) / self.single[other] for other in present if self.single.get(other)
        )


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one picture; the same may stand in several settings."""

    record: str
    image: str
    setting: Setting
    object: str
    label: YesNo


@dataclass(frozen=True, slots=True)
class PopeItem:
    """One answered question. `p_yes` is the share of "Yes" in the probability of "Yes" and "No".

    `said` is false for a text that is read as a "yes" only since the official rule reads everything else so.
    """

    id: str
    image: str
    setting: Setting
    object: str
    label: YesNo
    answer: YesNo
    p_yes: float
    right: bool
    said: bool = True


def count_objects(scenes: Iterable[Iterable[str]]) -> ObjectStatistics:
    """Count a corpus, given the objects of each of its captions or pictures."""
    single: Counter[str] = Counter()
    together: Counter[tuple[str, str]] = Counter()
    for scene in scenes:
        names = set(scene)
        single.update(names)
        together.update(permutations(names, 2))
    return ObjectStatistics(dict(single), dict(together))


def ask(
    record: Record, classes: Sequence[str], statistics: ObjectStatistics, questions: int, seed: int
) -> list[Question]:
    """The questions about one picture: as many "yes" as "no" in each setting, the same "yes" in all three.

    Fewer than `questions` of each where the picture holds (or lacks) fewer classes. Which objects are
    asked after depends on `seed` and the record's id alone.

    Raises:
        UserError: the record has no annotations, or several images.
    """
    if record.annotations is None or len(record.images) != 1:
        raise UserError(
            f"record {record.id}: POPE needs one image and its annotated objects; measure on records that "
            "have them, such as --records world:in-theme+anti-bias"
        )
    rng = random.Random(f"world-pope/1/{seed}/{record.id}")
    present = sorted(record.annotations.names)
    absent = [name for name in classes if name not in record.annotations.names]
    number = min(questions, len(present), len(absent))
    positives = rng.sample(present, number)
    # One random order under all three settings decides between objects that rank the same.
    shuffled = rng.sample(absent, len(absent))
    ranked: dict[Setting, list[str]] = {
        "random": shuffled,
        "popular": sorted(shuffled, key=lambda name: -statistics.single.get(name, 0)),
        "adversarial": sorted(shuffled, key=lambda name: -statistics.company(name, present)),
    }
    image = str(record.images[0].path)
    found = []
    for setting in SETTINGS:
        found += [Question(record.id, image, setting, name, "yes") for name in positives]
        found += [Question(record.id, image, setting, name, "no") for name in ranked[setting][:number]]
    return found


def prompt(name: str) -> tuple[Message, ...]:
    """The question after one object."""
    article = "an" if name[:1].lower() in "aeiou" else "a"
    return (Message("user", f"Is there {article} {name} in the image?"),)


def read(question: Question, yes: float, no: float) -> PopeItem:
    """Decide between the log-probabilities of "Yes" and "No"; a tie is a "no"."""
    answer: YesNo = "yes" if yes > no else "no"
    p_yes = 1 / (1 + math.exp(min(no - yes, 700.0)))
    return _item(question, answer, p_yes)


def read_text(question: Question, text: str) -> PopeItem:
    """Read an answer given as text by POPE's official rule; `p_yes` is then 1 or 0."""
    answer = parse_official(text)
    return replace(_item(question, answer, float(answer == "yes")), said=answer == "no" or says_yes(text))


def says_yes(text: str) -> bool:
    """Whether "yes" is a word of the text, in any case."""
    return re.search(r"\byes\b", text, re.IGNORECASE) is not None


def parse_official(text: str) -> YesNo:
    """POPE's own rule: "no" if No, no or not is a word of the first sentence, else "yes".

    The sentence ends at the first ".", commas vanish, words are split at single blanks and compared
    as they are, so "No!" or "NO" is a "yes". Source: evaluate.py of the POPE repository.
    """
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def count(items: Sequence[PopeItem], ids: Sequence[str]) -> dict[str, Ratio]:
    """The metrics of each setting as ratios of sums over the pictures `ids`, in their order.

    A picture without questions counts nothing. Positive is "yes"; `yes_ratio` is of the answers.
    """
    row = {record: index for index, record in enumerate(ids)}
    metrics: dict[str, Ratio] = {}
    for setting in SETTINGS:
        table = {outcome: np.zeros(len(ids)) for outcome in ("tp", "fp", "tn", "fn")}
        for item in items:
            if item.setting == setting:
                sign = "p" if item.answer == "yes" else "n"
                table[("t" if item.right else "f") + sign][row[item.id]] += 1
        tp, fp, tn, fn = table["tp"], table["fp"], table["tn"], table["fn"]
        asked = tp + fp + tn + fn
        for name, ratio in {
            "accuracy": Ratio(tp + tn, asked),
            "precision": Ratio(tp, tp + fp),
            "recall": Ratio(tp, tp + fn),
            "f1": Ratio(2 * tp, 2 * tp + fp + fn),
            "yes_ratio": Ratio(tp + fp, asked),
        }.items():
            metrics[f"pope_{setting}_{name}"] = ratio
    return metrics


def unparsed(items: Sequence[PopeItem], ids: Sequence[str]) -> Ratio:
    """Answers as text that say neither yes nor no, over the pictures `ids`."""
    row = {record: index for index, record in enumerate(ids)}
    neither, asked = np.zeros(len(ids)), np.zeros(len(ids))
    for item in items:
        asked[row[item.id]] += 1
        neither[row[item.id]] += not item.said
    return Ratio(neither, asked)


def _item(question: Question, answer: YesNo, p_yes: float) -> PopeItem:
    return PopeItem(
        id=question.record,
        image=question.image,
        setting=question.setting,
        object=question.object,
        label=question.label,
        answer=answer,
        p_yes=p_yes,
        right=answer == question.label,
    )
