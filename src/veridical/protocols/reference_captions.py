"""chair-captions/1: which objects of a caption do reference captions of the same picture not name.

CHAIR's numbers with reference captions in the place of annotations: an object is there if a reference (or annotation)
names it, by the same lexicon. References leave things out, so what counts as invented may be there: the numbers are
higher than CHAIR's, and compare models on the same pictures, not pictures or data sets. Several references of a picture
count together. Pictures without a reference are left out, and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from veridical.errors import UserError
from veridical.protocols import chair
from veridical.protocols.captioning import caption_name, caption_requests, caption_row, caption_settings
from veridical.protocols.equal_recall import cuts
from veridical.protocols.eval_task import Counted, Reply, Shown, Task
from veridical.protocols.sources import Pictures

if TYPE_CHECKING:
    from veridical.protocols.config import EvalConfig

NAME = "chair-captions/1"
KEY = "chair-captions"


def captions_task(pictures: Pictures, config: EvalConfig) -> Task:
    """Captions against the objects that their pictures' references name.

    Raises:
        UserError: no picture has a reference.
    """
    known = {r.id: names for r in pictures.records if (names := named_by_references(pictures, r.id)) is not None}
    if not known:
        raise UserError(
            f"--protocols {KEY}: no record of {config.records} has a reference caption; write them into metadata.jsonl "
            'as {"file_name": "a.jpg", "text": "..."}, or take --protocols side-by-side'
        )
    without = len(pictures.records) - len(known)
    requests = {key: request for key, request in caption_requests(pictures, config).items() if key in known}
    words = pictures.vocabulary

    def count(replies: Mapping[str, Reply]) -> Counted:
        items = [
            chair.read_against(r.id, str(r.images[0].path), str(replies[r.id]), words.lexicon, known[r.id])
            for r in pictures.records
            if r.id in known and r.id in replies
        ]
        return Counted(
            chair.counted(items, words.partner),
            rows=[caption_row(item) for item in items],
            captions=items,
            cuts=cuts(items),
            counts={"items": len(known), "unanswered": len(known) - len(items), "without_reference": without},
            notes=_notes(known, without),
        )

    return Task(
        key=KEY,
        name=caption_name(NAME, pictures, config),
        requests=requests,
        count=count,
        shown=SHOWN,
        settings=caption_settings(pictures, config),
        prefix="captions_",
    )


SHOWN = (
    Shown("chair_s", "CHAIRs %"),
    Shown("chair_i", "CHAIRi %"),
    Shown("recall", "recall %"),
    Shown("objects", "objects a caption", 2),
    Shown("words", "words a caption"),
    Shown("repetition", "names one twice %"),
)


def named_by_references(pictures: Pictures, record: str) -> frozenset[str] | None:
    """The objects that a picture's references and annotations name; None where it has neither."""
    one = pictures.by_id[record]
    references = pictures.references.get(record, ())
    if not references and one.annotations is None:
        return None
    annotated = one.annotations.names if one.annotations else frozenset()
    return annotated | {name for text in references for name in pictures.vocabulary.lexicon.names(text)}


def _notes(known: Mapping[str, frozenset[str]], without: int) -> list[str]:
    notes = ["invented means that no reference caption names it; references leave things out"]
    if without:
        notes.append(f"{without} pictures have no reference and are left out")
    if empty := sum(not names for names in known.values()):
        notes.append(f"the lexicon finds no object in the references of {empty} pictures (--lexicon FILE gives words)")
    return notes
