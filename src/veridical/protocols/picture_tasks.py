"""The protocols on annotated pictures, the picture world's or a user's own, as tasks for a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from veridical.protocols import chair, mme, pope, shr
from veridical.protocols.captioning import caption_name, caption_requests, caption_row, caption_settings
from veridical.protocols.equal_recall import cuts
from veridical.protocols.eval_task import Counted, Reply, Request, Shown, Task
from veridical.protocols.metrics import of_ratios
from veridical.protocols.sources import Pictures
from veridical.protocols.statistics import Ratio
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.images.views import Clean, View

if TYPE_CHECKING:
    from veridical.protocols.command import EvalConfig

TEXT_ANSWER = SamplingParams(max_new_tokens=16, temperature=0.0)


def chair_task(pictures: Pictures, config: EvalConfig) -> Task:
    """Captions against all that is in the pictures."""
    return caption_task(pictures, config, Clean(), 0.0)


def caption_task(pictures: Pictures, config: EvalConfig, view: View, temperature: float) -> Task:
    """CHAIR of pictures shown under a view; greedy at temperature 0, else keyed draws."""
    words = pictures.vocabulary

    def count(replies: Mapping[str, Reply]) -> Counted:
        items = [chair.read(r, str(replies[r.id]), words.lexicon) for r in pictures.records if r.id in replies]
        return Counted(
            of_ratios([item.id for item in items], chair.count(items, words.partner)),
            rows=[caption_row(item) for item in items],
            captions=items,
            cuts=cuts(items),
            counts={"items": len(pictures.records), "unanswered": len(pictures.records) - len(items)},
        )

    return Task(
        key="chair",
        name=caption_name(_named(chair.NAME, pictures), pictures, config),
        requests=caption_requests(pictures, config, view, temperature),
        count=count,
        shown=(
            Shown("chair_s", "CHAIRs %"),
            Shown("chair_i", "CHAIRi %"),
            Shown("invented_partner", "usual partner *%"),
            Shown("recall", "recall %"),
            Shown("objects", "objects a caption", 2),
            Shown("words", "words a caption"),
            Shown("repetition", "names one twice %"),
        ),
        settings=caption_settings(pictures, config),
    )


def pope_task(pictures: Pictures, config: EvalConfig) -> Task:
    """Yes/no questions about present and absent objects, in three settings."""
    words = pictures.vocabulary
    by_text = config.answers == "text"
    questions = {
        f"{q.record}/{q.setting}/{q.object}": q
        for record in pictures.records
        for q in pope.ask(record, words.classes, words.statistics, config.questions, config.seed)
    }
    images = {record.id: record.images for record in pictures.records}

    def count(replies: Mapping[str, Reply]) -> Counted:
        items = [_read_pope(question, replies[name]) for name, question in questions.items() if name in replies]
        ids = list(images)
        ratios: dict[str, Ratio] = pope.count(items, ids)
        if by_text:
            ratios["pope_unparsed"] = pope.unparsed(items, ids)
        return Counted(
            of_ratios(ids, ratios),
            rows=[asdict(item) for item in items],
            counts={
                "items": len(questions),
                "unanswered": len(questions) - len(items),
                "unparsed": sum(not item.said for item in items),
            },
        )

    return Task(
        key="pope",
        name=_named(pope.TEXT_NAME if by_text else pope.NAME, pictures),
        requests={
            name: Request(
                images[q.record],
                pope.prompt(q.object),
                TEXT_ANSWER,
                choices=() if by_text else pope.ANSWERS,
                key=("pope", q.record),
            )
            for name, q in questions.items()
        },
        count=count,
        shown=tuple(
            Shown(f"pope_{setting}_{metric}", label)
            for setting in pope.SETTINGS
            for metric, label in (("accuracy", f"POPE {setting} %"), ("yes_ratio", "  says yes %"))
        ),
        settings={"questions": config.questions},
    )


def shr_task(pictures: Pictures, config: EvalConfig) -> Task:
    """Descriptions judged sentence by sentence."""
    records = {record.id: record for record in pictures.records}

    def count(replies: Mapping[str, Reply]) -> Counted:
        items = [shr.read(r, str(replies[name]), pictures.vocabulary) for name, r in records.items() if name in replies]
        return Counted(
            shr.count(items),
            rows=[asdict(item) for item in items],
            counts={"items": len(records), "unanswered": len(records) - len(items)},
        )

    sampling = SamplingParams(max_new_tokens=shr.MAX_NEW_TOKENS, temperature=0.0)
    return Task(
        key="shr",
        name=_named(shr.NAME, pictures),
        requests={name: Request(r.images, shr.ask(), sampling, key=("shr", name)) for name, r in records.items()},
        count=count,
        shown=(
            Shown("ratio", "SHR %"),
            Shown("cannot_judge", "cannot judge %"),
            Shown("sentences", "sentences", 2),
            Shown("words", "words"),
            Shown("repetition_4", "new 4-grams", 2),
        ),
        settings={"prompt": shr.PROMPT, "decoding": "greedy", "max_new_tokens": shr.MAX_NEW_TOKENS},
        prefix="shr_",
    )


def mme_task(pictures: Pictures, config: EvalConfig) -> Task:
    """Pairs of yes/no questions about existence, count, position and scene."""
    images = {record.id: record.images for record in pictures.records}
    questions = {q.id: q for record in pictures.records for q in mme.ask(record, pictures.vocabulary, config.seed)}

    def count(replies: Mapping[str, Reply]) -> Counted:
        items = [mme.read(q, str(replies[name])) for name, q in questions.items() if name in replies]
        return Counted(
            mme.count(items, list(images)),
            rows=[asdict(item) for item in items],
            counts={
                "items": len(questions),
                "unanswered": len(questions) - len(items),
                "unparsed": sum(item.parsed == "other" for item in items),
            },
        )

    asked = dict.fromkeys(q.subtask for q in questions.values())
    return Task(
        key="mme",
        name=_named(mme.NAME, pictures),
        requests={
            name: Request(images[q.record], mme.prompt(q), TEXT_ANSWER, key=("mme", q.record))
            for name, q in questions.items()
        },
        count=count,
        shown=(
            *(Shown(f"{name}_{m}", f"{name} {label}") for name in asked for m, label in _MME_SHOWN),
            Shown("yes_ratio", "  says yes %"),
            Shown("unparsed", "  unparsed %"),
        ),
        settings={"decoding": "greedy", "max_new_tokens": mme.MAX_NEW_TOKENS},
        prefix="mme_",
    )


_MME_SHOWN = (("acc", "acc %"), ("acc_plus", "acc+ %"))


def under_view(pictures: Pictures, config: EvalConfig, records: int, view: View, temperature: float) -> Task:
    """CHAIR of the first `records` pictures of each split under a view."""
    fewer = {split: found[:records] for split, found in pictures.splits.items()}
    return caption_task(replace(pictures, splits=fewer), config, view, temperature)


def _read_pope(question: pope.Question, reply: Reply) -> pope.PopeItem:
    return pope.read_text(question, reply) if isinstance(reply, str) else pope.read(question, *reply)


def _named(name: str, pictures: Pictures) -> str:
    """A protocol's name: numbers on other pictures are those of another protocol."""
    return f"{pictures.origin}-{name}"
