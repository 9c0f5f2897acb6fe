"""side-by-side/1: what can be said of captions where nothing is known about the pictures.

Each model describes every picture. Then it is asked, yes or no, about every object that it or another model named
there, and about as many that none of them named. That is no truth: a model may stand by what it made up. It is
*consistency*: the share of objects named by any model for which a model's answer agrees with that model's caption.
Beside it: how often it stands by what it named itself (`stands_by`), says yes to what only others named
(`takes_over`), and says yes to what nobody named (`yes_unnamed`, which a model that always says yes answers with
100). `agreement` is the share of the objects named by a model or the base that both named. Objects are found by the
lexicon; the answer is the likelier of "Yes" and "No".
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from veridical.judges.claims import exists
from veridical.judges.lexicon import Mention
from veridical.protocols.benchmark_task import YES_NO
from veridical.protocols.captioning import caption_name, caption_requests, caption_settings
from veridical.protocols.chair import REPETITION_WORDS, repeated_ngrams
from veridical.protocols.eval_task import Counted, Reply, Request, Shown, Task
from veridical.protocols.metrics import Sums, share, tally
from veridical.protocols.sources import Pictures
from veridical.protocols.statistics import FloatArray
from veridical.records import Message

if TYPE_CHECKING:
    from veridical.protocols.config import EvalConfig

NAME = "side-by-side/1"
KEY = "side-by-side"

COLUMNS = (
    "captions", "words", "objects", "mentions", "repeating", "runs", "repeated", "both", "either",
    "asked", "yes", "consistent", "own", "own_yes", "others", "others_yes", "unnamed", "unnamed_yes",
)  # fmt: skip


@dataclass(frozen=True)
class Named:
    """What was named in one picture: by the base, by anyone, and what nobody named that is asked after as well."""

    base: frozenset[str]
    anyone: tuple[str, ...]
    nobody: tuple[str, ...]


def side_by_side_task(pictures: Pictures, config: EvalConfig) -> Task:
    """Captions of all models; then questions about what any of them named."""
    requests = caption_requests(pictures, config)
    task = Task(
        key=KEY,
        name=caption_name(NAME, pictures, config),
        requests=requests,
        count=lambda replies: _counted(pictures, {}, replies),
        shown=SHOWN,
        settings={
            **caption_settings(pictures, config),
            "questions": "yes/no by likelihood, about what any model named",
        },
        prefix="side_",
    )

    def ask(replies: Mapping[str, Mapping[str, Reply]]) -> Task:
        named = named_objects(pictures, list(replies.values()), config.seed)
        return replace(
            task,
            requests={**requests, **_questions(pictures, named)},
            count=lambda own: _counted(pictures, named, own),
            then=None,
        )

    return replace(task, then=ask)


SHOWN = (
    Shown("words", "words a caption"),
    Shown("objects", "objects a caption", 2),
    Shown("repetition", "names one twice %"),
    Shown("repeated_ngrams", "repeats 4 words %"),
    Shown("agreement", "objects as the base %"),
    Shown("consistency", "consistent with itself %"),
    Shown("stands_by", "  yes to own objects %"),
    Shown("takes_over", "  yes to others' objects %"),
    Shown("yes_unnamed", "  yes to objects of nobody %"),
    Shown("yes_ratio", "  says yes %"),
)


def named_objects(pictures: Pictures, captions: Sequence[Mapping[str, Reply]], seed: int) -> dict[str, Named]:
    """By record id, what all models' captions name, the base's first, and as many objects that none does."""
    words = pictures.vocabulary
    objects = {}
    for record in pictures.records:
        by_model = [
            words.lexicon.names(str(caption[record.id])) if record.id in caption else () for caption in captions
        ]
        anyone = tuple(dict.fromkeys(name for names in by_model for name in names))
        others = [name for name in words.classes if name not in anyone]
        rng = random.Random(f"side-by-side/{seed}/{record.id}")
        nobody = tuple(rng.sample(others, min(len(others), len(anyone))))
        objects[record.id] = Named(frozenset(by_model[0]), anyone, nobody)
    return objects


def _questions(pictures: Pictures, named: Mapping[str, Named]) -> dict[str, Request]:
    return {
        _question_id(record.id, name): Request(
            record.images, (Message("user", exists(name)),), choices=YES_NO, key=("side-by-side", record.id)
        )
        for record in pictures.records
        for name in (*named[record.id].anyone, *named[record.id].nobody)
    }


def _question_id(record: str, name: str) -> str:
    return f"{record}/asked/{name}"


def _counted(pictures: Pictures, named: Mapping[str, Named], replies: Mapping[str, Reply]) -> Counted:
    rows, cells = [], []
    for record in pictures.records:
        if record.id not in replies:
            continue
        caption = str(replies[record.id])
        mentions = pictures.vocabulary.lexicon.mentions(caption)
        about = named.get(record.id, Named(frozenset(), (), ()))
        yes = {}
        for name in (*about.anyone, *about.nobody):
            answer = replies.get(_question_id(record.id, name))
            if isinstance(answer, tuple):
                yes[name] = answer[0] > answer[1]
        rows.append(_row(record.id, str(record.images[0].path), caption, mentions, about, yes))
        cells.append((record.id, _cells(caption, mentions, about, yes)))
    without = sum(not naming.anyone for naming in named.values())
    notes = ["consistency is agreement of a model's answers with its own caption, not with the picture"]
    if without:
        notes.append(f"in {without} pictures the lexicon finds no object in any caption (--lexicon FILE gives words)")
    return Counted(
        tally(cells, COLUMNS, _metrics),
        rows=rows,
        counts={"items": len(pictures.records), "unanswered": len(pictures.records) - len(rows)},
        notes=notes,
    )


def _row(
    record: str, image: str, caption: str, mentions: Sequence[Mention], about: Named, yes: Mapping[str, bool]
) -> dict[str, Any]:
    """One picture as a row of JSON; `doubted` are the spans of what the model itself says no to, when asked."""
    return {
        "id": record,
        "image": image,
        "caption": caption,
        "words": len(caption.split()),
        "mentions": [{"name": m.name, "start": m.start, "end": m.end} for m in mentions],
        "says_yes_to": [name for name, said in yes.items() if said],
        "says_no_to": [name for name, said in yes.items() if not said],
        "named_by_nobody": list(about.nobody),
        "doubted": [[m.start, m.end] for m in mentions if yes.get(m.name) is False],
    }


def _cells(caption: str, mentions: Sequence[Mention], about: Named, yes: Mapping[str, bool]) -> dict[str, float]:
    own = {mention.name for mention in mentions}
    repeated, runs = repeated_ngrams(caption, REPETITION_WORDS)
    asked = [name for name in about.anyone if name in yes]
    others = [name for name in asked if name not in own]
    mine = [name for name in asked if name in own]
    nobody = [name for name in about.nobody if name in yes]
    numbers = {
        "captions": 1, "words": len(caption.split()), "objects": len(own), "mentions": len(mentions),
        "repeating": len(own) < len(mentions), "runs": runs, "repeated": repeated,
        "both": len(own & about.base), "either": len(own | about.base),
        "asked": len(asked), "yes": sum(yes[name] for name in asked),
        "consistent": sum(yes[name] == (name in own) for name in asked),
        "own": len(mine), "own_yes": sum(yes[name] for name in mine),
        "others": len(others), "others_yes": sum(yes[name] for name in others),
        "unnamed": len(nobody), "unnamed_yes": sum(yes[name] for name in nobody),
    }  # fmt: skip
    return {name: float(number) for name, number in numbers.items()}


def _metrics(sums: Sums) -> dict[str, FloatArray]:
    return {
        "words": share(sums["words"], sums["captions"], 1.0),
        "objects": share(sums["objects"], sums["captions"], 1.0),
        "repetition": share(sums["repeating"], sums["captions"]),
        "repeated_ngrams": share(sums["repeated"], sums["runs"]),
        "agreement": share(sums["both"], sums["either"]),
        "consistency": share(sums["consistent"], sums["asked"]),
        "stands_by": share(sums["own_yes"], sums["own"]),
        "takes_over": share(sums["others_yes"], sums["others"]),
        "yes_unnamed": share(sums["unnamed_yes"], sums["unnamed"]),
        "yes_ratio": share(sums["yes"] + sums["unnamed_yes"], sums["asked"] + sums["unnamed"]),
    }
