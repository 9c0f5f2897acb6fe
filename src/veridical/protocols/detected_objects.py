"""chair-detector/1: which objects of a caption does an object detector not see in the picture.

CHAIR's numbers with a detector in the place of annotations, or any other judge that answers `Presence`: an object is
there, is absent, or the judge doesn't know. What it doesn't know counts neither as invented nor as found, and its share
of all mentions is shown. Recall is of what the judge sees. A detector's errors are the same for all models, so
differences between models on the same pictures mean more than the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from veridical.judges.interface import JudgeError, Presence
from veridical.protocols import chair
from veridical.protocols.captioning import caption_name, caption_requests, caption_row, caption_settings
from veridical.protocols.equal_recall import cuts
from veridical.protocols.eval_task import Counted, Reply, Shown, Task
from veridical.protocols.judged_sentences import ask, open_judge
from veridical.protocols.metrics import Sums, Tally, share
from veridical.protocols.reference_captions import SHOWN as CAPTIONS_SHOWN
from veridical.protocols.sources import Pictures
from veridical.protocols.statistics import FloatArray

if TYPE_CHECKING:
    from veridical.judges.interface import Seen
    from veridical.protocols.config import EvalConfig

NAME = "chair-detector/1"
KEY = "chair-detector"
SHOWN = (*CAPTIONS_SHOWN, Shown("unknown", "judge doesn't know %"))
LOOKS_FOR_ALL = ("detector", "oracle", "rules")
"""Judges that are asked about every class of the lexicon; others about what any of the models named."""

Sight = Mapping[str, Mapping[str, "Seen"]]
"""By record id, what the judge says of each object."""


def detected_task(pictures: Pictures, config: EvalConfig) -> Task:
    """Captions of all models against what a judge sees in the pictures."""
    task = Task(
        key=KEY,
        name=caption_name(f"{NAME} by {config.judge.name}", pictures, config),
        requests=caption_requests(pictures, config),
        count=lambda replies: _counted(pictures, "", {}, replies),
        shown=SHOWN,
        settings=caption_settings(pictures, config),
        prefix="detector_",
    )

    def look(replies: Mapping[str, Mapping[str, Reply]]) -> Task:
        panel = open_judge(pictures, config, Presence, KEY)
        every = config.judge.name in LOOKS_FOR_ALL
        asked = [Presence(r, _names(pictures, r.id, replies, every)) for r in pictures.records]
        said: list[Any] = ask(panel, asked, "objects")
        sight = {
            request.record.id: seen
            for request, seen in zip(asked, said, strict=True)
            if not isinstance(seen, JudgeError)
        }
        who = panel.names([Presence])
        return replace(
            task,
            name=caption_name(f"{NAME} by {who}", pictures, config),
            count=lambda own: _counted(pictures, who, sight, own),
            then=None,
        )

    return replace(task, then=look)


def _names(pictures: Pictures, record: str, replies: Mapping[str, Mapping[str, Reply]], every: bool) -> tuple[str, ...]:
    """The objects that a judge is asked about in one picture."""
    words = pictures.vocabulary
    if every:
        return words.classes
    captions = [str(reply[record]) for reply in replies.values() if record in reply]
    return tuple(dict.fromkeys(name for text in captions for name in words.lexicon.names(text)))


def _counted(pictures: Pictures, who: str, sight: Sight, replies: Mapping[str, Reply]) -> Counted:
    words = pictures.vocabulary
    items = [
        _read(pictures, record.id, str(replies[record.id]), sight[record.id])
        for record in pictures.records
        if record.id in replies and record.id in sight
    ]
    failed = len(pictures.records) - len(sight)
    notes = [f"{who} says what is in the pictures; what it doesn't know counts neither as invented nor as found"]
    return Counted(
        _with_unknown(chair.counted(items, words.partner)),
        rows=[caption_row(item) for item in items],
        captions=items,
        cuts=cuts(items),
        counts={
            "items": len(pictures.records),
            "unanswered": sum(record.id not in replies for record in pictures.records),
            "judge_failed": failed,
        },
        notes=[*notes, *([f"{who} failed on {failed} pictures, which are left out"] if failed else [])],
    )


def _read(pictures: Pictures, record: str, caption: str, seen: Mapping[str, Seen]) -> chair.ChairItem:
    lexicon = pictures.vocabulary.lexicon
    present = frozenset(name for name, said in seen.items() if said == "present")
    absent = frozenset(name for name, said in seen.items() if said == "absent")
    unknown = frozenset(lexicon.names(caption)) - present - absent
    image = str(pictures.by_id[record].images[0].path)
    return chair.read_against(record, image, caption, lexicon, present, unknown)


def _with_unknown(counted: Tally) -> Tally:
    """CHAIR's metrics and, beside them, the share of mentions that the judge doesn't know."""

    def formula(sums: Sums) -> dict[str, FloatArray]:
        return {**counted.formula(sums), "unknown": share(sums["unknown"], sums["all_mentions"])}

    return Tally(counted.groups, counted.sums, formula)
