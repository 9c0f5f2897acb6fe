"""POPE's questions (Li et al. 2023, arXiv 2305.10355) from annotated pictures.

Each picture is asked after up to `number` of its own objects and after as many absent ones, chosen in three settings:
at random, the most popular in a corpus, or those that most often come with what is in the picture.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from veridical.errors import UserError
from veridical.judges.claims import exists
from veridical.protocols.object_statistics import ObjectStatistics
from veridical.protocols.types import Question
from veridical.records import Record

Setting = Literal["random", "popular", "adversarial"]
SETTINGS: tuple[Setting, ...] = ("random", "popular", "adversarial")


def ask(record: Record, classes: Sequence[str], statistics: ObjectStatistics, number: int, seed: int) -> list[Question]:
    """The questions about one picture: as many "yes" as "no" in each setting, the same "yes" in all three.

    Fewer than `number` of each where the picture holds (or lacks) fewer classes. Which objects are asked after depends
    on `seed` and the record's id alone. Ids are RECORD/SETTING/OBJECT.

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
    number = min(number, len(present), len(absent))
    positives = rng.sample(present, number)
    # One random order under all three settings decides between objects that rank the same.
    shuffled = rng.sample(absent, len(absent))
    ranked: dict[Setting, list[str]] = {
        "random": shuffled,
        "popular": sorted(shuffled, key=lambda name: -statistics.single.get(name, 0)),
        "adversarial": sorted(shuffled, key=lambda name: -statistics.company(name, present)),
    }
    questions = []
    for setting in SETTINGS:
        questions += [_question(record, setting, name, "yes") for name in positives]
        questions += [_question(record, setting, name, "no") for name in ranked[setting][:number]]
    return questions


def _question(record: Record, setting: Setting, name: str, label: Literal["yes", "no"]) -> Question:
    return Question(
        id=f"{record.id}/{setting}/{name}",
        image=str(record.images[0].path),
        prompt=exists(name),
        truth=label,
        kind=setting,
        group=record.id,
        more={"object": name},
    )
