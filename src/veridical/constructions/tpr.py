"""TPR: topic-level preference rewriting, arXiv 2411.17265: each topic of an answer replaced by the best and the worst
that the model itself says about it, and the pairs learnt from easy to hard.

The model answers several times. Of one answer each sentence is a topic, told by the objects that it names. Its
alternatives are the sentences of the other answers about the same objects, and what the model says when it is asked
again at that place. A checker says how true each alternative is, p(yes) - p(no). Chosen is the answer with every topic
replaced by its best alternative; rejected the same with the worst ones (an easy pair), or with those just below the
best (a hard pair): 60 % and 40 % in TPR-CL's curriculum, easy ones first, so each pair states its `difficulty`.

The paper has a language model split answers into facts, sort them into topics and write the replaced facts back into
the answer; here sentences are replaced as they are, which needs no writer.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from annotated_types import Ge

from veridical.bounds import Natural, NotNegative, Positive, Share
from veridical.constructions import text_filters
from veridical.constructions.protocol import Answer, Rejected, Request, Sample, Steps, YesNo, make_pair
from veridical.judges.interface import ExtractObjects, Kind, ToQuestion, Verify
from veridical.judges.lexicon import Mention
from veridical.judges.sentences import sentences
from veridical.judges.tokens import FULL_STOPS
from veridical.records import Message, Record
from veridical.vlm.generation.params import SamplingParams
from veridical.vlm.inputs.context import Context
from veridical.vlm.seeds import generator

NAME = "tpr"
HARD = "difficulty"


@dataclass(frozen=True)
class TprSettings:
    """How answers and alternatives are drawn and checked, and how hard the pairs are."""

    candidates: Annotated[int, Ge(2)] = 10
    """Answers drawn for each record; 10 in the released code."""
    temperature: NotNegative = 0.7
    """Sampling temperature; 0.7 in the released code."""
    ask_again: Natural = 2
    """Further sentences drawn at each place of the answer."""
    check: Literal["model", "judge"] = "judge"
    """Who says how true a sentence is: the model itself, by its probability of yes; or the judge."""
    hard_share: Share = 0.4
    """Share of the pairs whose rejected side has the alternatives just below the best; 0.4 in TPR-CL."""
    max_new_tokens: Positive = 512
    """Longest answer in tokens."""
    max_words: Positive = 350
    """Longer answers are left out."""
    keep_unfinished: bool = False
    """Keep answers that were cut off at max_new_tokens."""


def judge_needs(settings: TprSettings) -> tuple[Kind, ...]:
    """What is asked of the judges."""
    return (ExtractObjects, ToQuestion) if settings.check == "model" else (ExtractObjects, Verify)


def tpr(record: Record, settings: TprSettings, seed: int) -> Steps:
    """Chosen: an own answer with the best of what the model says on each topic.

    Rejected: the same with worse. Needs: what the judge needs.
    """
    context = Context(record.images, record.prompt, key=(record.id,))
    sampling = SamplingParams(settings.max_new_tokens, settings.temperature)
    sampled: list[Answer] = yield Sample(
        context, tuple((seed, record.id, NAME, number) for number in range(settings.candidates)), sampling
    )
    faults = text_filters.Faults("candidates", settings.max_words, settings.keep_unfinished)
    texts = list(faults.distinct((answer, "own sample") for answer in sampled))
    if len(texts) < 2:
        raise faults.rejected()
    topics = sentences(texts[0])
    others = [sentence.strip() for text in texts[1:] for sentence in sentences(text)]
    named = yield from _named([*(topic.strip() for topic in topics), *others])
    again = yield from _asked_again(context, topics, sampling, settings.ask_again, (seed, record.id, NAME, "again"))
    hard = float(generator("tpr curriculum", (seed, record.id)).random()) < settings.hard_share
    best, worse, known = "", "", dict[str, float]()
    for topic, drawn in zip(topics, again, strict=True):
        own = topic.strip()
        alike = [other for other in others if named[own] and named[own] & named[other]]
        alternatives = list(dict.fromkeys([own, *alike, *drawn]))
        ranked = yield from _ranked(record, alternatives, settings.check, known)
        space = topic[len(topic.rstrip()) :]
        best += ranked[0] + space
        worse += _worse(ranked, known, hard) + space
    if text_filters.same(best, worse):
        raise Rejected(
            "none-better", "draw more candidates, or raise the temperature", "no topic has a worse alternative"
        )
    return [
        make_pair(
            record,
            "hard" if hard else "easy",
            (best.strip(), "own answer, each topic at its best"),
            (worse.strip(), f"own answer, each topic {'a little worse' if hard else 'at its worst'}"),
            scores={HARD: float(hard), "topics": len(topics)},
        )
    ]


def _named(texts: Sequence[str]) -> Generator[Request, Any, dict[str, frozenset[str]]]:
    """The objects that each sentence names."""
    found: dict[str, frozenset[str]] = {}
    for text in dict.fromkeys(texts):
        mentions: list[Mention] = yield ExtractObjects(text)
        found[text] = frozenset(mention.name for mention in mentions)
    return found


def _asked_again(
    context: Context, topics: Sequence[str], sampling: SamplingParams, count: int, key: tuple[str | int, ...]
) -> Generator[Request, Any, list[list[str]]]:
    """Further sentences in the place of each topic, after what stands before it."""
    if not count:
        return [[] for _ in topics]
    before = ["".join(topics[:place]).rstrip() for place in range(len(topics))]
    sampled: list[Answer] = yield Sample(
        context,
        keys=tuple((*key, place, number) for place in range(len(topics)) for number in range(count)),
        sampling=replace(sampling, stop=FULL_STOPS),
        after=tuple(text for text in before for _ in range(count)),
    )
    texts = [one.text.strip() if one.finished else "" for one in sampled]
    return [[text for text in texts[place * count : (place + 1) * count] if text] for place in range(len(topics))]


def _ranked(
    record: Record, texts: Sequence[str], check: Literal["model", "judge"], known: dict[str, float]
) -> Generator[Request, Any, list[str]]:
    """The alternatives from the truest on, p(yes) - p(no) in `known`; of equals the first comes first."""
    for text in texts:
        if text in known:
            continue
        if check == "judge":
            true: float = yield Verify(record, text)
        else:
            question: str = yield ToQuestion(text)
            true = yield YesNo(Context(record.images, (Message("user", question),), key=(record.id,)))
        known[text] = 2 * true - 1
    return sorted(texts, key=lambda text: -known[text])


def _worse(ranked: Sequence[str], known: Mapping[str, float], hard: bool) -> str:
    """The least true alternative, or the truest of those that are less true than the best; the best if none is."""
    below = [text for text in ranked if known[text] < known[ranked[0]]]
    return (below[0] if hard else below[-1]) if below else ranked[0]
